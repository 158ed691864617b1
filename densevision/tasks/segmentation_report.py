"""What an evaluation leaves for people: a table of the classes, which is taken for which, and the worst pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densevision.io import atomic_write, write_json, write_png
from densevision.metrics.segmentation import SegmentationScores
from densevision.visualize import confusion_picture


@dataclass(frozen=True)
class ClassLine:
    """One class of a report; fractions, nan where not defined.

    share: of all labelled pixels. recall: of the class's pixels that were found. precision: of the pixels predicted as
    it that are of it. taken_for: the class that most of the missed pixels were predicted as, with their share of the
    class's pixels; empty without a missed pixel.
    """

    name: str
    iou: float
    recall: float
    precision: float
    share: float
    taken_for: str
    taken_share: float


def class_lines(scores: SegmentationScores) -> list[ClassLine]:
    """The lines of a report, one a class, in the classes' order."""
    counts = scores.counts
    hits, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)[:-1]
    recall, iou = scores.accuracy, scores.iou
    others = [*scores.names, "no class"]
    lines = []
    for k, name in enumerate(scores.names):
        missed = counts[k].copy()
        missed[k] = 0
        most = int(missed.argmax())
        lines.append(
            ClassLine(
                name=name,
                iou=iou[name],
                recall=recall[name],
                precision=_ratio(hits[k], predicted[k]),
                share=_ratio(truth[k], truth.sum()),
                taken_for=others[most] if missed[most] else "",
                taken_share=_ratio(missed[most], truth[k]),
            )
        )
    return lines


def write_report(
    folder: Path,
    scores: SegmentationScores,
    worst: Sequence[tuple[str, float, np.ndarray]],
    title: str,
) -> None:
    """Write ``report.md``, ``report.json``, ``confusion.png`` and ``worst/NN_<name>.png``.

    Args:
        folder: made if it is not there; files of these names are replaced.
        scores: over all pictures.
        worst: name, mIoU and (H, W, 3) uint8 drawing of the worst pictures, the worst first.
        title: what was judged on what, one line.
    """
    lines = class_lines(scores)
    files = []
    for number, (name, _, drawing) in enumerate(worst, start=1):
        files.append(f"worst/{number:02}_{name}.png")
        write_png(folder / files[-1], drawing)
    write_png(folder / "confusion.png", confusion_picture(scores.counts, [*scores.names, "no class"]))
    report = {
        "title": title,
        **scores.to_dict(),
        "classes": [vars(line) for line in lines],
        "confusion": scores.counts,
        "worst": [{"name": w[0], "miou": w[1], "file": file} for w, file in zip(worst, files, strict=True)],
    }
    write_json(folder / "report.json", report)
    text = [f"# {title}", "", f"mIoU **{_percent(scores.miou)}**, pixel accuracy {_percent(scores.pixel_accuracy)}", ""]
    text += [
        "| class | IoU | recall | precision | share of pixels | most often taken for |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        figures = [_percent(value) for value in (line.iou, line.recall, line.precision, line.share)]
        taken = f"{line.taken_for} ({_percent(line.taken_share)} of it)" if line.taken_for else ""
        text.append(f"| {' | '.join([line.name, *figures, taken])} |")
    text += ["", "![who is taken for whom](confusion.png)", ""]
    text += ["A row is a true class; its numbers say what its pixels were taken for, in percent.", ""]
    text += ["## The worst pictures", ""]
    for (name, miou, _), file in zip(worst, files, strict=True):
        text += [f"{name}: mIoU {_percent(miou)} over the classes in it", "", f"![{name}](<{file}>)", ""]
    with atomic_write(folder / "report.md") as partial:
        partial.write_text("\n".join(text), encoding="utf-8")


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
