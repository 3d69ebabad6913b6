"""The choice of the recommended recipe: made on validation videos, written to a file, and committed before the test.

# Note [No test before the choice]: ``Workshop.choice`` names the file, and a job that looks at test videos refuses
# while the file is missing, differs from the last commit, or is in no repository: nobody can choose after having seen.

# Note [One standard error]: of some thirty candidates the highest is partly the luckiest. So the simplest candidate is
chosen whose total lies no more than one standard error of the paired difference, over the seeds, below the highest
(Breiman et al., Classification and Regression Trees, 1984, section 3.4.3). With one seed the highest is chosen.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tempclr.errors import InputError
from tempclr.recipes.claims.grid import CANDIDATES, FEW_SHOT_LOSSES, UNIT_CANDIDATES, Job
from tempclr.recipes.claims.measuring import NORMALISATIONS
from tempclr.recipes.claims.work import read_result

__all__ = [
    "RELEASED_LOSS",
    "bases",
    "choose",
    "read_choice",
    "refuse_after_test",
    "require_commit",
    "validation_score",
    "write_choice",
]

PAPER_RECIPE = "dtw"
RELEASED_LOSS = "dot+dtw"
RETRIEVAL_MEASURES = ("dtw", "otam", "dtw+cap_avg", "otam+cap_avg", "cap_avg")


def validation_score(numbers: Mapping[str, float], measure: str) -> dict[str, float]:
    """What a recipe is chosen by, of a run's numbers.

    ``retrieval``: mean of R@1, R@5 and R@10 over both backgrounds (clean protocol) by ``measure``; ``localization``:
    share of steps found; ``total``: the mean of both.
    """
    keys = [f"clean/{background}/{measure}/R@{k}" for background in ("removed", "kept") for k in (1, 5, 10)]
    retrieval = float(np.mean([numbers[key] for key in keys]))
    return {
        "retrieval": retrieval,
        "localization": numbers["localization"],
        "total": (retrieval + numbers["localization"]) / 2,
    }


def choose(output_dir: Path, seeds: Sequence[int], *, few_shot_sets: Sequence[str] = ()) -> dict[str, Any]:
    """The simplest of the candidates with the best validation score over the seeds, with its best measure.

    See Note [One standard error]; ``CANDIDATES`` begins with the simplest. Test results are not read. The loss for
    few-shot matching is the one whose DTW and OTAM do best in tasks over the training classes. Raises
    :class:`InputError` where a run is missing.

    Returns ``recipe`` and ``measure``; ``scores``: for each candidate its best measure, ``retrieval``,
    ``localization``, ``total`` and ``totals``, one a seed; ``runner_up``, the best of the others, with ``lead``, by how
    much the chosen one's total is higher in each seed; ``best_retrieval`` and ``best_localization``;
    ``unit_recipe``, the best of the unit losses.
    """
    scores = {name: _best_measure(output_dir, seeds, name) for name in CANDIDATES}

    def ranked(key: str, names: Sequence[str] = CANDIDATES) -> list[str]:
        return sorted(names, key=lambda name: -round(scores[name][key], 6))  # stable: of equals the simpler is first

    highest = ranked("total")[0]
    first = next(name for name in CANDIDATES if _as_good(scores[name]["totals"], scores[highest]["totals"]))
    second = next(name for name in ranked("total") if name != first)
    normalisations = {
        kind: float(
            np.mean([_validation(output_dir, seed, first)["numbers"][f"normalised/{kind}/R@1"] for seed in seeds])
        )
        for kind in (*NORMALISATIONS, "soft")
    }
    return {
        "recipe": first,
        "measure": scores[first]["measure"],
        "runner_up": second,
        "lead": np.subtract(scores[first]["totals"], scores[second]["totals"]).tolist(),
        "best_retrieval": ranked("retrieval")[0],
        "best_localization": ranked("localization")[0],
        "unit_recipe": ranked("total", UNIT_CANDIDATES)[0],
        "normalisation": max(normalisations, key=lambda kind: normalisations[kind]),
        "normalisations": normalisations,
        "scores": scores,
        "paper_recipe": PAPER_RECIPE,
        "few_shot": _few_shot_choice(output_dir, seeds, few_shot_sets),
        "seeds": list(seeds),
    }


def _as_good(totals: Sequence[float], highest: Sequence[float]) -> bool:
    """See Note [One standard error]."""
    behind = np.subtract(highest, totals)
    error = behind.std(ddof=1) / np.sqrt(len(behind)) if len(behind) > 1 else 0.0
    return bool(behind.mean() <= error + 1e-6)


def _best_measure(output_dir: Path, seeds: Sequence[int], name: str) -> dict[str, Any]:
    numbers = [_validation(output_dir, seed, name)["numbers"] for seed in seeds]
    found = []
    for measure in RETRIEVAL_MEASURES:
        scores = [validation_score(one, measure) for one in numbers]
        means: dict[str, Any] = {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}
        found.append({"measure": measure, **means, "totals": [one["total"] for one in scores]})
    return max(found, key=lambda one: round(one["total"], 6))


def _few_shot_choice(output_dir: Path, seeds: Sequence[int], sets: Sequence[str]) -> dict[str, Any]:
    if not sets:
        return {}
    scores = {}
    for loss in FEW_SHOT_LOSSES:
        values = []
        for name in sets:
            for seed in seeds:
                result = read_result(Job("few_shot", seed, f"{name}/{loss}"), output_dir)
                if result is None:
                    raise InputError(f"seed {seed}: {name}/{loss} is not done, so that nothing can be chosen yet")
                values += [result["base"]["numbers"][f"{measure} 1-shot"] for measure in ("dtw", "otam")]
        scores[loss] = float(np.mean(values))
    return {"loss": max(scores, key=lambda loss: scores[loss]), "scores": scores}


def _validation(output_dir: Path, seed: int, name: str) -> dict[str, Any]:
    result = read_result(Job("train", seed, name), output_dir)
    if result is None:
        raise InputError(f"seed {seed}: the run {name!r} is not done, so that nothing can be chosen yet")
    return result["validation"]


def bases(choice: Mapping[str, Any]) -> tuple[str, ...]:
    """What all candidates are held against: the best unit loss, the paper's weights, and these over dot products."""
    return tuple(dict.fromkeys((choice["unit_recipe"], choice["paper_recipe"], RELEASED_LOSS)))


def write_choice(path: Path, choice: Mapping[str, Any]) -> None:
    """Write the choice; it holds once it is committed."""
    from tempclr.evaluation.report import write_results

    write_results(path, choice)


def read_choice(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def refuse_after_test(output_dir: Path) -> None:
    """Refuse to choose again once a test video was looked at. See Note [No test before the choice].

    Raises:
        InputError: ``output_dir`` holds a test result.
    """
    for kind in ("test", "few_shot_test"):
        found = next(output_dir.glob(f"seed-*/{kind}/*.json"), None)
        if found is not None:
            raise InputError("test results are there: the choice stands", file=found)


def require_commit(path: Path) -> None:
    """Refuse to go on unless ``path`` stands in the last commit as it is. See Note [No test before the choice].

    Raises:
        InputError: it is missing, changed, not committed, or in no repository.
    """
    if not path.is_file():
        raise InputError("no choice was made yet: --choose writes it, then commit it", file=path)
    for words in (["ls-files", "--error-unmatch"], ["diff", "--quiet", "HEAD"]):
        try:
            done = subprocess.run(
                ["git", *words, "--", path.name], cwd=path.parent, capture_output=True, timeout=60, check=False
            )
        except OSError as error:
            raise InputError(f"git cannot be asked whether the choice is committed: {error}", file=path) from error
        if done.returncode:
            raise InputError(
                "the choice is not committed as it stands: commit it before the test videos are looked at", file=path
            )
