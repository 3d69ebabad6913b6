"""The demo's report: what was trained, what it reached, pictures, and how to load the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

REPORT = """# TempCLR on generated instructional videos

{num_train} training, {num_validation} validation and {num_test} test videos, made by `tempclr demo --seed {seed}`.
Every test video performs an order of steps that no training video shows. All models start from the same weights and
see the same batches; the unit loss contrasts single pairs of sentence and clip, TempCLR adds the sequence loss, which
contrasts the true order with shuffled ones.

## Test videos

{test_table}

R@1 of full-video retrieval, paragraphs being queries: a video is its annotated segments, or (*kept*) windows of
{window_seconds:g} s over all of it; ties rank last. *Step recall*: share of the steps whose one predicted second lies
inside the true segment. *Matched*: share of sentences that the DTW path of their own video pairs with their own
segment; costs are never negative and the diagonal is the shortest path, so this share is 1 unless the clips mislead.

![R@1 of the test videos](figures/retrieval.png)

### What the sequence loss changes

R@1 of TempCLR minus that of the unit loss alone, in points, with the 95 % interval of a paired bootstrap over the test
queries (each interval for itself, not corrected for their number):

{comparison}

In short: {reading}

The sequence loss contrasts distances along ordered paths, which is what DTW and OTAM measure; Cap. Avg. looks at each
sentence alone, and no order can help it. Tasks of the test set come in groups that share their actions and differ by
one exchange of steps or one replaced step, so that the order decides between the last few candidates only.

## Validation videos

The difficulty of the generator and every setting of the training were chosen on validation videos; the test videos
were looked at afterwards.

{validation_table}

## Training

![loss curves](figures/losses.png)

## One test video, aligned

`{video_id}`: its similarity to the paragraph, second by second, with the path that DTW takes.

![alignment](figures/alignment.png)

## The model

It was pushed to a Hub on this machine as `{repo_id}` and came back bit for bit ({num_tensors} tensors).

```python
from tempclr import TempCLRModel

model = TempCLRModel.from_pretrained("{model_dir}")
alignment = model.align("{video}", {sentences})
for span in alignment.spans:
    print(span)
```

On the command line, with the sentences in a file, one a line:

```sh
tempclr align --model {model_dir} --video {video} --sentences steps.txt --plot alignment.png
```
"""

COLUMNS = (
    ("removed", "cap_avg", "Cap. Avg."),
    ("removed", "dtw", "DTW"),
    ("removed", "otam", "OTAM"),
    ("removed", "dtw+cap_avg", "DTW + Cap. Avg."),
    ("kept", "cap_avg", "kept: Cap. Avg."),
    ("kept", "dtw", "kept: DTW"),
    ("kept", "otam", "kept: OTAM"),
)


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a model: R@1 of each measure, step recall, share of matched pairs; mean over the training seeds."""
    from tempclr.evaluation.report import markdown_table

    headers = ["", *(title for _, _, title in COLUMNS), "step recall", "matched"]
    rows = []
    for name, scores in results.items():
        recalls = [scores["retrieval"][background][measure]["R@1"] for background, measure, _ in COLUMNS]
        rows.append([name, *recalls, scores["localization"]["recall"], scores["matching"]["match_share"]])
    return markdown_table(headers, rows)


def comparison(differences: Sequence[Mapping[str, Any]]) -> str:
    """The paired bootstrap intervals, one row a comparison, in points."""
    from tempclr.evaluation.report import markdown_table

    rows = [
        [
            entry["minus"],
            entry["background"],
            entry["measure"],
            *(100 * entry[key] for key in ("difference", "low", "high")),
        ]
        for entry in differences
    ]
    return markdown_table(["TempCLR minus", "background", "measure", "difference", "low", "high"], rows, digits=1)


def reading(differences: Sequence[Mapping[str, Any]]) -> str:
    """What the intervals say, from the numbers alone: which of them leave 0 out, and how many do not.

    >>> entry = {"minus": "unit loss", "measure": "dtw", "background": "kept", "difference": 0.1}
    >>> reading([{**entry, "low": -0.1, "high": 0.3}])
    'all 1 intervals include 0: on so many queries no difference is shown.'
    """
    shown = [entry for entry in differences if entry["low"] > 0 or entry["high"] < 0]
    if not shown:
        return f"all {len(differences)} intervals include 0: on so many queries no difference is shown."
    told = "; ".join(
        f"{entry['measure']} against {entry['minus']}, background {entry['background']} "
        f"({100 * entry['difference']:+.1f})"
        for entry in shown
    )
    rest = len(differences) - len(shown)
    return f"the interval leaves 0 out for {told}; the other {rest} include 0, so no difference is shown there."


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    *,
    window_seconds: float,
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    paragraph: Paragraph,
    model: Any,
    model_dir: Path,
    hub: Mapping[str, Any],
) -> None:
    """Write ``report.md`` and ``figures/`` below ``folder``: pictures first, so that the report never lacks one."""
    from tempclr.data.files import atomic_path

    draw_figures(folder / "figures", results, histories=histories, paragraph=paragraph, model=model)
    text = REPORT.format(
        **results["settings"],
        test_table=results_table(results["test"]),
        validation_table=results_table(results["validation"]),
        comparison=comparison(results["test_differences"]),
        reading=reading(results["test_differences"]),
        window_seconds=window_seconds,
        video_id=paragraph.video_id,
        video=os.path.normpath(str(paragraph.video)),
        sentences=list(paragraph.sentences),
        model_dir=model_dir,
        repo_id=hub["repo_id"],
        num_tensors=hub["num_tensors"],
    )
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def draw_figures(
    folder: Path,
    results: Mapping[str, Any],
    *,
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    paragraph: Paragraph,
    model: Any,
) -> None:
    """Loss curves, bars of R@1, and the alignment of one video with a filmstrip of its own frames."""
    from types import SimpleNamespace

    from tempclr.data.video import read_frames
    from tempclr.plots import plot_alignment, plot_losses, plot_retrieval

    if paragraph.video is None:
        raise ValueError(f"{paragraph.video_id} has no video file to take a filmstrip from")
    folder.mkdir(parents=True, exist_ok=True)
    plot_losses(histories, path=folder / "losses.png")
    removed = {
        name: SimpleNamespace(metrics=scores["retrieval"]["removed"]) for name, scores in results["test"].items()
    }
    plot_retrieval(removed, path=folder / "retrieval.png")
    frames, frame_seconds = read_frames(paragraph.video, frames_per_second=1.0)
    plot_alignment(
        model.align(paragraph.features, list(paragraph.sentences)),
        frames=frames,
        frame_seconds=frame_seconds,
        true_spans=list(zip(paragraph.starts, paragraph.ends, strict=True)),
        path=folder / "alignment.png",
    )
