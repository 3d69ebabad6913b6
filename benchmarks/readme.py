"""Write the README's table of measured numbers from results files, so that no number there is typed.

python benchmarks/readme.py runs/demo     # takes over results.json and timings.json of a demo run
python benchmarks/readme.py               # only renews the table from benchmarks/results/demo.json
"""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
MARKERS = ("<!-- measured by make demo -->", "<!-- end -->")


def take_over(run_dir: Path) -> None:
    """Keep what a demo run measured, with the machine it ran on."""
    import torch
    import transformers

    kept = {name: json.loads((run_dir / f"{name}.json").read_text()) for name in ("results", "timings")}
    kept["machine"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "num_threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def table() -> str:
    from tempclr.recipes.demo import RUNS
    from tempclr.recipes.demo_report import reading, results_table

    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    results, machine = kept["results"], kept["machine"]
    settings = results["settings"]
    seconds = sum(kept["timings"].values())
    return (
        f"`make demo`: {settings['num_test']} test videos, R@1 of full-video retrieval with the background removed or "
        f"*kept*, then step recall\nand matched pairs ({machine['device']}, {machine['num_threads']} threads, "
        f"torch {machine['torch']}; {seconds:.0f} s in all).\n\n"
        f"{results_table({name: results['test'][name] for name in RUNS})}\n\n"
        "R@1 of TempCLR minus that of the unit loss alone, in points, with 95 % intervals of a paired bootstrap over "
        "the queries: "
        f"{reading(results['test_differences'])}"
    )


def renewed(readme: str) -> str:
    """The README with its table made anew."""
    start, end = (re.escape(marker) for marker in MARKERS)
    return re.sub(f"{start}.*?{end}", lambda _: f"{MARKERS[0]}\n{table()}\n{MARKERS[1]}", readme, flags=re.S)


if __name__ == "__main__":
    if sys.argv[1:]:
        take_over(Path(sys.argv[1]))
    path = ROOT / "README.md"
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
