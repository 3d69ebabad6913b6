"""Write the tables of measured numbers into README.md and kernels/README.md, so that no number there is typed.

python benchmarks/readme.py runs/demo     # takes over results.json and timings.json of a demo run
python benchmarks/readme.py               # only renews the tables from benchmarks/results/*.json
"""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path

from kernel_tables import full_table, short_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
CLAIMS = ROOT / "benchmarks" / "results" / "claims.json"
CONFIRMATION = ROOT / "benchmarks" / "results" / "claims_confirmation.json"
END = "<!-- end -->"


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


def claims_table() -> str:
    """What the paper's claims come to on generated videos, in short; a sentence while the runs have not been made."""
    from tempclr.evaluation.report import markdown_table
    from tempclr.recipes.claims.confirmation_results import confirmation_sentence
    from tempclr.recipes.claims.tables import short_table
    from tempclr.recipes.claims.verdicts import counted

    if not CLAIMS.is_file():
        return "The paper's claims on generated videos: not run yet (`python benchmarks/claims.py`)."
    results = json.loads(CLAIMS.read_text(encoding="utf-8"))
    made = short_table(results)
    confirmed = ""
    if CONFIRMATION.is_file():
        confirmed = f"{confirmation_sentence(json.loads(CONFIRMATION.read_text(encoding='utf-8')))} "
    return (
        f"`python benchmarks/claims.py`: {made.note}\n\n{markdown_table(made.headers, made.rows)}\n\n"
        f"{confirmed}The paper's claims on these videos: {counted(results)}. Claim by claim, with intervals and terms: "
        "[docs/claims.md](docs/claims.md)."
    )


# Each file's tables: the marker that begins one, and what makes it. A marker that is not there asks for no table.
TABLES = {
    "README.md": {
        "<!-- measured by make demo -->": table,
        "<!-- measured by benchmarks/claims.py -->": claims_table,
        "<!-- measured by benchmarks -->": short_table,
    },
    "kernels/README.md": {"<!-- measured by benchmarks -->": full_table},
}


def renewed(text: str, name: str = "README.md") -> str:
    """The text of a file with its tables made anew."""
    for marker, make in TABLES[name].items():
        if marker in text:
            found = f"{re.escape(marker)}.*?{re.escape(END)}"
            made = f"{marker}\n{make()}\n{END}"
            text = re.sub(found, lambda _, made=made: made, text, flags=re.S)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "hub")]
    if sys.argv[1:]:
        take_over(Path(sys.argv[1]))
    for name in TABLES:
        path = ROOT / name
        path.write_text(renewed(path.read_text(encoding="utf-8"), name), encoding="utf-8")
