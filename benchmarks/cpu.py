"""Time the kernels against every installed peer, and keep the numbers in benchmarks/results/cpu.json.

python benchmarks/cpu.py                    # all workloads, minutes
python benchmarks/cpu.py --workloads A1 W1  # any option of `tempclr bench`
"""

from __future__ import annotations

import sys
from pathlib import Path

from tempclr.cli import main

RESULTS = Path(__file__).resolve().parent / "results" / "cpu.json"

if __name__ == "__main__":
    sys.exit(main(["bench", "--output", str(RESULTS), *sys.argv[1:]]))
