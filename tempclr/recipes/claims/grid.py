"""Every run by name: what is trained, from where, with which loss; tables share the runs they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tempclr.errors import InputError

__all__ = [
    "BOTH",
    "CANDIDATES",
    "FEW_SHOT_LOSSES",
    "MEMORY_RUNS",
    "OTHER_RATES",
    "PERTURBED",
    "RATE_RUNS",
    "RUNS",
    "STRATEGY_RUNS",
    "TEMPERATURE_RUNS",
    "UNIT_CANDIDATES",
    "ClaimSettings",
    "Run",
    "in_decimals",
    "lineage",
]


@dataclass(frozen=True)
class ClaimSettings:
    """Sizes of the grid, the same for ``--quick`` and the full run; a folder of results belongs to one setting.

    The first ``num_train`` training videos pretrain, the ``num_finetune`` after them fine-tune on localization.

    Raises:
        InputError: a count below 1.
    """

    num_train: int = 100
    num_finetune: int = 60
    num_validation: int = 60
    num_test: int = 120
    video_frames_per_second: int = 10
    image_size: int = 112
    num_epochs: int = 20
    batch_size: int = 25
    learning_rate: float = 1e-3
    continued_learning_rate: float = 5e-4
    norm_learning_rate: float = 1e-3
    localization_updates: int = 150
    few_video_updates: int = 60
    localization_batch_size: int = 4
    hidden_size: int = 128
    window_seconds: float = 2.0
    few_shot_tasks: int = 1000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise InputError(f"must be above 0, got {value}", field=name)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One training, but for the seed.

    Attributes:
        loss: fields of ``LossArguments``, or of ``LocalizationArguments`` where ``task`` is localization.
        start: the run whose model it goes on from; None: random weights, the same for all runs of a seed.
        task: ``"pretraining"`` or ``"localization"``, fine-tuning on videos with steps.
        train_parameters: ``"all"`` or ``"norm_only"``.
        train_fraction: share of the fine-tuning videos.
        learning_rate: None: what the settings have for runs of its kind.
    """

    name: str
    loss: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    task: str = "pretraining"
    train_parameters: str = "all"
    train_fraction: float = 1.0
    learning_rate: float | None = None


UNIT: dict[str, Any] = {"unit_weight": 1.0, "sequence_weight": 0.0}
BOTH: dict[str, Any] = {"unit_weight": 0.3, "sequence_weight": 0.7}
DOT: dict[str, Any] = {"similarity": "dot"}
COSINE: dict[str, Any] = {"similarity": "cosine", "temperature": 0.05}
STRATEGY_RUNS = {
    "unpaired": "dot>unpaired",
    "within_seg": "dot>within_seg",
    "seg_only": "dot>seg_only",
    "seg_unit": "dot>dtw",
    "all_unit": "dot>all_unit",
    "joint": "dot>joint",
    "visual_anchor": "dot>visual_anchor",
}


def _tempered(name: str, temperature: float) -> str:
    """The name of a run over cosines; that of temperature 0.05 says nothing of it."""
    if temperature == COSINE["temperature"]:
        return name
    return f"{name} t{f'{temperature:g}'.removeprefix('0')}"


def _from_scratch() -> Iterator[Run]:
    yield Run("dot", {**DOT, **UNIT})
    yield Run("cosine", {**COSINE, **UNIT})
    for temperature in (0.02, 0.1, 0.2, 0.3, 0.5):
        yield Run(_tempered("cosine", temperature), {**COSINE, **UNIT, "temperature": temperature})
    yield Run("dot+dtw", {**DOT, **BOTH})
    yield Run("dot+otam", {**DOT, **BOTH, "measure": "otam"})
    yield Run("dtw", {**COSINE, **BOTH})
    yield Run("otam", {**COSINE, **BOTH, "measure": "otam"})
    for temperature in (0.1, 0.2, 0.3, 0.5):
        for measure in ("dtw", "otam"):
            loss = {**COSINE, **BOTH, "measure": measure, "temperature": temperature}
            yield Run(_tempered(measure, temperature), loss)
    for temperature in (0.2, 0.3):
        for weight in (0.12, 0.3):  # 0.12: the paper's in fine-tuning
            loss = {**COSINE, "unit_weight": 1 - weight, "sequence_weight": weight, "temperature": temperature}
            yield Run(f"{_tempered('dtw', temperature)} w{f'{weight:g}'.removeprefix('0')}", loss)
    yield Run("dtw hard", {**COSINE, **BOTH, "gamma": 0.0})
    yield Run("otam hard", {**COSINE, **BOTH, "measure": "otam", "gamma": 0.0})
    for measure in ("dtw", "otam"):
        for negatives in ("unpaired", "joint"):
            yield Run(f"{measure} {negatives}", {**COSINE, **BOTH, "measure": measure, "negatives": negatives})
    for negatives in ("unpaired", "joint"):
        yield Run(f"dtw t.2 {negatives}", {**COSINE, **BOTH, "temperature": 0.2, "negatives": negatives})
    yield Run("dtw unpaired hard", {**COSINE, **BOTH, "negatives": "unpaired", "gamma": 0.0})
    yield Run("dtw unpaired t.3", {**COSINE, **BOTH, "negatives": "unpaired", "sequence_temperature": 0.3})


def _continued() -> Iterator[Run]:
    """From the unit loss on, as the paper starts from VideoCLIP."""
    for start, similarity in (("dot", DOT), ("cosine", COSINE)):
        yield Run(f"{start}>unit", {**similarity, **UNIT}, start)
        yield Run(f"{start}>dtw", {**similarity, **BOTH}, start)
        yield Run(f"{start}>otam", {**similarity, **BOTH, "measure": "otam"}, start)
    for measure in ("dtw", "otam"):
        loss = {**DOT, **BOTH, "measure": measure}
        yield Run(f"dot>{measure} norm", loss, "dot", train_parameters="norm_only")
    for negatives, name in STRATEGY_RUNS.items():
        if negatives != "seg_unit":
            yield Run(name, {**DOT, **BOTH, "negatives": negatives}, "dot")
    for size in (16, 64):  # the positive among them
        yield Run(f"dot>dtw {size}", {**DOT, **BOTH, "num_negatives": size - 1}, "dot")


def _finetuned() -> Iterator[Run]:
    losses: dict[str, dict[str, Any]] = {
        "unit": UNIT,
        "otam": {"unit_weight": 0.88, "sequence_weight": 0.12, "measure": "otam"},
        "dtw": {"unit_weight": 0.88, "sequence_weight": 0.12, "measure": "dtw"},
    }

    def run(start: str, loss: str, **options: Any) -> Run:
        percent = f" {100 * options['train_fraction']:.0f}%" if options else ""
        return Run(f"{start}|{loss}{percent}", losses[loss], start, "localization", **options)

    for start in ("dot", "dot>unit", "dot>dtw", "dot>dtw norm"):
        for loss in losses:
            yield run(start, loss)
    for fraction in (0.1, 0.2):
        yield run("dot", "unit", train_fraction=fraction)
        yield run("dot>dtw", "dtw", train_fraction=fraction)
        yield run("dot", "dtw", train_fraction=fraction)
    yield Run("dot|seg_only", {**losses["dtw"], "negatives": "seg_only"}, "dot", "localization")


def _at_other_rates() -> Iterator[Run]:
    """How the unit loss is gone on with is varied in the full run alone: it adds minutes a seed."""
    losses = {"unit": UNIT, "dtw": BOTH}
    for rate in (1e-4, 2e-5):
        for name, loss in losses.items():
            yield Run(f"dot>{name}{_rated(rate)}", {**DOT, **loss}, "dot", learning_rate=rate)
    yield Run("dot>unit norm", {**DOT, **UNIT}, "dot", train_parameters="norm_only")
    for name, loss in losses.items():
        run = f"dot>{name} norm{_rated(5e-3)}"
        yield Run(run, {**DOT, **loss}, "dot", train_parameters="norm_only", learning_rate=5e-3)


def _rated(rate: float) -> str:
    """How a run's name tells its rate.

    >>> _rated(2e-5)
    ' r2e-5'
    """
    return f" r{rate:.0e}".replace("e-0", "e-")


def in_decimals(rate: float) -> str:
    """A rate for a reader.

    >>> in_decimals(2e-5)
    '0.00002'
    """
    return f"{rate:f}".rstrip("0")


OTHER_RATES = {run.name: run for run in _at_other_rates()}
RUNS: dict[str, Run] = {run.name: run for run in (*_from_scratch(), *_continued(), *_finetuned())} | OTHER_RATES
# From the simplest to the most involved: of equal scores the first is chosen.
CANDIDATES = tuple(run.name for run in _from_scratch())
UNIT_CANDIDATES = tuple(run.name for run in _from_scratch() if run.loss["sequence_weight"] == 0)
# Loss -> temperature of the unit loss -> run, from scratch, with the paper's weights.
TEMPERATURE_RUNS = {
    told: {temperature: _tempered(name, temperature) for temperature in (0.05, 0.1, 0.2, 0.3, 0.5)}
    for told, name in {"unit loss": "cosine", "unit loss + DTW": "dtw", "unit loss + OTAM": "otam"}.items()
}
# Loss and parameters -> rate of going on with them from the unit loss over dot products -> run.
RATE_RUNS: dict[str, dict[float, str]] = {
    "unit loss": {5e-4: "dot>unit", 1e-4: "dot>unit r1e-4", 2e-5: "dot>unit r2e-5"},
    "TempCLR": {5e-4: "dot>dtw", 1e-4: "dot>dtw r1e-4", 2e-5: "dot>dtw r2e-5"},
    "unit loss, norms alone": {5e-3: "dot>unit norm r5e-3", 1e-3: "dot>unit norm"},
    "TempCLR, norms alone": {5e-3: "dot>dtw norm r5e-3", 1e-3: "dot>dtw norm"},
}
# What a training takes is measured on these, one seed of each.
MEMORY_RUNS = ("dot>unit", "dot>dtw", "dot>otam", "dot>dtw 64", "dot>otam norm")
PERTURBED = ("dot", "dot>unit", "dot>dtw", "cosine", "cosine>dtw")
# The objective of a video alone: the contrast of mean frames between videos is its other part.
FEW_SHOT_LOSSES: dict[str, Mapping[str, Any] | None] = {
    "features": None,
    "unit": UNIT,
    "unit t.02": {**UNIT, "temperature": 0.02},
    "dtw": BOTH,
    "otam": {**BOTH, "measure": "otam"},
    "dtw t.1": {**BOTH, "temperature": 0.1},
    "dtw hard": {**BOTH, "gamma": 0.0},
    "dtw alone": {"unit_weight": 0.0, "sequence_weight": 1.0},
}


def lineage(name: str, runs: Mapping[str, Run] = RUNS) -> list[str]:
    """The run and those it goes on from, the first one first.

    >>> lineage("dot>dtw|unit")
    ['dot', 'dot>dtw', 'dot>dtw|unit']
    """
    start = runs[name].start
    return [*(lineage(start, runs) if start is not None else []), name]


def folder_name(name: str) -> str:
    """A run's name as a file's: ``>`` becomes ``_then_``, ``|`` ``_tuned_``.

    >>> folder_name("dot>dtw norm|unit 10%")
    'dot_then_dtw-norm_tuned_unit-10pc'
    """
    told = name.replace(">", "_then_").replace("|", "_tuned_").replace("%", "pc")
    return told.replace(" ", "-").replace("+", "_and_")


@dataclass(frozen=True)
class Job:
    """One piece of work with one results file.

    ``kind``: ``"data"``, ``"train"`` (with the validation scores), ``"test"``, ``"step"``, ``"memory"``, ``"few_shot"``
    or ``"few_shot_test"``; ``name`` is the run's, or ``set/loss`` in few-shot learning.
    """

    kind: str
    seed: int
    name: str = ""

    def file(self, output_dir: Path) -> Path:
        """Where its result lies: there if, and only if, the job is done."""
        return (
            output_dir / f"seed-{self.seed}" / self.kind / f"{folder_name(self.name.replace('/', '_')) or 'done'}.json"
        )

    def needs(self) -> list[Job]:
        """The jobs that must be done before."""
        if self.kind in ("train", "step", "memory"):
            start = "dtw" if self.kind == "step" else RUNS[self.name].start
            before = [] if start is None else [Job("train", self.seed, start)]
            return [Job("data", self.seed), *before]
        if self.kind == "test":
            return [Job("train", self.seed, self.name)]
        if self.kind == "few_shot_test":
            return [Job("few_shot", self.seed, self.name)]
        return []


def jobs_of(
    seeds: Sequence[int], *, few_shot_sets: Sequence[str] = (), test: bool, runs: Mapping[str, Run] = RUNS
) -> list[Job]:
    """All jobs, seed after seed, so that an early stop leaves whole seeds; with ``test`` those of the test videos."""
    jobs = []
    for seed in seeds:
        jobs.append(Job("data", seed))
        jobs += [Job("train", seed, name) for name in runs]
        jobs.append(Job("step", seed))
        jobs += [Job("memory", seed, name) for name in MEMORY_RUNS if seed == seeds[0] and name in runs]
        names = [f"{one}/{loss}" for one in few_shot_sets for loss in FEW_SHOT_LOSSES]
        jobs += [Job("few_shot", seed, name) for name in names]
    for seed in seeds if test else ():
        jobs += [Job("test", seed, name) for name in runs]
        names = [f"{one}/{loss}" for one in few_shot_sets for loss in FEW_SHOT_LOSSES]
        jobs += [Job("few_shot_test", seed, name) for name in names]
    return jobs
