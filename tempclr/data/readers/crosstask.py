"""CrossTask: ``tasks_primary.txt``, ``tasks_related.txt``, ``videos.csv``, ``videos_val.csv`` and ``annotations/``.

A task file has blocks of five lines, a blank one between: number, title, address, number of steps, the steps separated
by commas. ``videos.csv`` and ``videos_val.csv`` have the cells task, video id, address and no line of names.
``annotations/<task>_<video_id>.csv`` has a line for each segment: number of the step from 1, start and end in seconds.
Checked against the release: 18 primary and 65 related tasks, 4,700 videos; the 2,750 of primary tasks are annotated.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from tempclr.data.readers.official_files import check_cells, find_files, read_csv, read_text
from tempclr.data.readers.records import (
    AnnotatedSentence,
    AnnotatedVideo,
    Findings,
    Reading,
    as_id,
    as_number,
    as_span,
    as_text,
)
from tempclr.errors import InputError

SPLIT_RULES = ("fixed", "released")
_VIDEO_CELLS = ("task", "video_id", "address")
_STEP_CELLS = ("step", "start", "end")
_TASK_FILES = ("tasks_primary.txt", "tasks_related.txt")
_Pair = tuple[str, str]  # task number and video id


@dataclass(frozen=True)
class Task:
    """A task of CrossTask: its title and its steps in order. Primary tasks are the annotated ones."""

    title: str
    steps: tuple[str, ...]
    is_primary: bool


def read_crosstask(
    annotations: Sequence[str | PathLike[str]],
    *,
    available: Container[str] | None = None,
    split_rule: str = "fixed",
    num_train_videos: int = 30,
    seed: int = 0,
) -> Reading:
    """The annotated videos of CrossTask, splits ``train``, ``validation`` (those of ``videos_val.csv``) and ``test``.

    Rows have ``task`` (the title), ``label`` (the task's number), ``steps`` and ``step_indices``.

    Args:
        annotations: the folder of the release.
        available: the videos there are features or files of; only ``split_rule="released"`` looks at it.
        split_rule, num_train_videos, seed: see :func:`crosstask_splits`.

    Raises:
        InputError: not the folder of the release, or an unknown rule.
    """
    if split_rule not in SPLIT_RULES:
        raise InputError(f"split_rule must be one of {', '.join(SPLIT_RULES)}, got {split_rule!r}")
    if num_train_videos < 1:
        raise InputError(f"num_train_videos must be at least 1, got {num_train_videos}")
    if len(annotations) != 1 or not Path(annotations[0]).is_dir():
        given = ", ".join(map(str, annotations))
        raise InputError(f"CrossTask is read from one folder, with tasks_primary.txt in it; got {given}")
    folder = Path(annotations[0])
    files = find_files([folder / name for name in ("tasks_primary.txt", "videos.csv", "videos_val.csv")], ())
    files += [folder / name for name in ("tasks_related.txt",) if (folder / name).is_file()]
    if not (folder / "annotations").is_dir():
        raise InputError("holds no folder annotations/", file=folder)
    steps_files = sorted((folder / "annotations").glob("*.csv"))

    def scan(findings: Findings) -> Iterator[AnnotatedVideo]:
        present = available if split_rule == "released" else None
        return _videos(folder, present, num_train_videos, seed, findings)

    options = {"split_rule": split_rule, "num_train_videos": num_train_videos, "seed": seed}
    return Reading((*files, *steps_files), scan, ("task", "label", "steps", "step_indices"), options)


# Note [A split that no missing file changes]: the released reader draws its 30 training videos of a task from the
# videos whose features and annotations lie on the disk, so that one failed download moves other videos between
# training and test. The fixed rule draws from videos.csv itself. With every file in place both give the same split.
def crosstask_splits(
    pairs: Sequence[_Pair],
    *,
    primary_tasks: Container[str],
    validation: Container[_Pair],
    present: Callable[[_Pair], bool] | None = None,
    num_train_videos: int = 30,
    seed: int = 0,
) -> dict[_Pair, str]:
    """Which split each video of each task belongs to.

    Args:
        pairs: task and video id, in the order of ``videos.csv``.
        primary_tasks: tasks whose videos are split; those of other tasks are all for training.
        validation: pairs that are in neither training nor test.
        present: the released rule: the pairs it refuses are left out before anything is drawn. None is the fixed rule.
        num_train_videos: drawn from each primary task that has more than so many.
        seed: of NumPy's generator, as released.

    >>> pairs = [("1", "a"), ("1", "b"), ("1", "c")]
    >>> crosstask_splits(pairs, primary_tasks={"1"}, validation={("1", "a")}, num_train_videos=1)
    {('1', 'a'): 'validation', ('1', 'b'): 'test', ('1', 'c'): 'train'}
    """
    splits = {
        pair: "validation" if pair in validation else "train" for pair in pairs if present is None or present(pair)
    }
    by_task: dict[str, list[_Pair]] = {}
    for pair in splits:
        by_task.setdefault(pair[0], []).append(pair)
    generator = np.random.RandomState(seed)
    for task, of_task in by_task.items():
        rest = [pair for pair in of_task if splits[pair] != "validation"]
        if task in primary_tasks and len(rest) > num_train_videos:
            drawn = {int(index) for index in generator.choice(len(rest), num_train_videos, replace=False)}
            splits |= {pair: "test" for index, pair in enumerate(rest) if index not in drawn}
    return splits


def _videos(
    folder: Path, available: Container[str] | None, num_train_videos: int, seed: int, findings: Findings
) -> Iterator[AnnotatedVideo]:
    tasks = {number: task for name in _TASK_FILES for number, task in _tasks(folder / name, findings)}
    pairs = _pairs(folder / "videos.csv", tasks, findings)
    validation = set(_pairs(folder / "videos_val.csv", tasks, findings))
    files = {file.stem: file for file in (folder / "annotations").glob("*.csv")}

    def present(pair: _Pair) -> bool:
        return available is not None and pair[1] in available and "_".join(pair) in files

    splits = crosstask_splits(
        pairs,
        primary_tasks={number for number, task in tasks.items() if task.is_primary},
        validation=validation,
        present=None if available is None else present,
        num_train_videos=num_train_videos,
        seed=seed,
    )
    findings.note("videos.csv names videos without annotations", sum("_".join(pair) not in files for pair in pairs))
    findings.note("annotations of videos that videos.csv lacks", len(files.keys() - set(map("_".join, pairs))))
    for number, video_id in pairs:
        file = files.get(f"{number}_{video_id}")
        if file is None:
            continue
        if (number, video_id) not in splits:
            findings.note("annotated videos left out by the released rule: no features or file")
            continue
        sentences: list[AnnotatedSentence] = []
        with findings.at(file, f"video {video_id!r}"):
            sentences = _sentences(file, tasks[number].steps, findings)
        if sentences:
            split, task = splits[number, video_id], tasks[number]
            yield AnnotatedVideo(video_id, split, tuple(sentences), file, task.title, number, task.steps)


def _tasks(file: Path, findings: Findings) -> Iterator[tuple[str, Task]]:
    """The tasks of one file by their numbers; a file of related tasks may be missing."""
    if not file.is_file():
        return
    blocks = [block.strip().split("\n") for block in read_text(file).replace("\r", "").split("\n\n") if block.strip()]
    seen = set()
    for index, block in enumerate(blocks):
        found = None
        with findings.at(file, f"task {index}"):
            if len(block) != 5:
                raise InputError(
                    f"expected 5 lines (number, title, address, number of steps, steps), found {len(block)}"
                )
            number, title = as_id(block[0].strip(), "number"), as_text(block[1], "title")
            steps = tuple(as_text(step, "steps") for step in block[4].split(","))
            if str(len(steps)) != block[3].strip():
                raise InputError(f"has {len(steps)} steps but says {block[3]!r}", field="steps")
            if number in seen:
                raise InputError(f"task {number} is there twice", field="number")
            found = number, Task(title, steps, file.name == "tasks_primary.txt")
        if found is not None:
            seen.add(found[0])
            yield found
    if not seen:
        raise InputError("holds no tasks", file=file)


def _pairs(file: Path, tasks: Mapping[str, Task], findings: Findings) -> list[_Pair]:
    pairs: dict[_Pair, None] = {}
    for number, row in enumerate(read_csv(file, columns=_VIDEO_CELLS)):
        with findings.at(file, f"row {number}"):
            check_cells(row, _VIDEO_CELLS)
            pair = row["task"], as_id(row["video_id"])
            if pair[0] not in tasks:
                raise InputError(f"no task {pair[0]!r} in {' or '.join(_TASK_FILES)}", field="task")
            if pair in pairs:
                raise InputError(f"the video {pair[1]!r} of task {pair[0]} is listed twice", field="video_id")
            pairs[pair] = None
    return list(pairs)


def _sentences(file: Path, steps: Sequence[str], findings: Findings) -> list[AnnotatedSentence]:
    rows = read_csv(file, columns=_STEP_CELLS)
    sentences = []
    for number, row in enumerate(rows):
        record = f"row {number}"
        with findings.at(file, record):
            check_cells(row, _STEP_CELLS)
            step = as_number(row["step"], "step")
            if not 1 <= step <= len(steps) or step != int(step):
                raise InputError(f"expected a step from 1 to {len(steps)}, found {row['step']!r}", field="step")
            start, end = as_span([as_number(row[name], name) for name in ("start", "end")], "start")
            index = int(step) - 1
            sentences.append(AnnotatedSentence(steps[index], start, end, record, step_index=index))
    if not rows:
        raise InputError("holds no segments")
    return sentences
