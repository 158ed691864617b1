"""The model card: what somebody who gets an exported file wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densevision.config import config_from_dict
from densevision.export.agreement import TOLERANCES
from densevision.export.precision import PrecisionReport
from densevision.export.write import Exported

# what a figure of the evaluation is called, and by which key its values by class stand
_BY_CLASS = {"iou": "IoU", "map_per_class": "AP", "map_50_per_class": "AP50", "recall": "recall"}
_RESULTS = {
    "segmentation": 'result.save("picture_classes.png")  # also result.class_map, result.shares',
    "detection": 'result.save("picture_boxes.png")  # also result.boxes, result.scores, result.names',
    "classification": "print(result.top(5))  # also result.probabilities",
}
_OUTPUTS = {
    "logits": "the scores of each class, before softmax",
    "classes": "uint8 (1, H, W), the class of each pixel",
    "class_logits": "(1, anchors, classes + 1), column 0 the background",
    "box_deltas": "(1, anchors, 4), offsets from the anchors",
    "boxes": "(1, N, 4) x1, y1, x2, y2 in pixels of the resized picture",
    "scores": "(1, N) from 0 to 1, the best first",
    "labels": "(1, N) class indices",
    "count": "(1,) how many of the N are detections",
    "probabilities": "(1, classes)",
}


@dataclass(frozen=True)
class CardRow:
    """A line of the latency table: where, milliseconds, how far the passes were apart (a fraction)."""

    runtime: str
    ms: float
    spread: float


def card(
    exported: Exported,
    params: int,
    madds: int,
    metrics: Mapping[str, Any] | None,
    latency: Sequence[CardRow],
    conditions: str,
    report: PrecisionReport | None = None,
) -> str:
    """A model card in Markdown.

    Args:
        exported: the file.
        params, madds: of the network, at the file's picture size.
        metrics: what ``densevision evaluate`` says of the checkpoint, None where nobody judged it.
        latency: the table's lines.
        conditions: how they were measured, a sentence.
        report: of a file in int8 or fp16.
    """
    metadata = exported.metadata
    config = config_from_dict(metadata.config, str(exported.path)).config
    names = metadata.label_map.names
    height, width = metadata.image_size
    parts = [
        f"# {exported.path.name}",
        f"{config.task.capitalize()} of {len(names)} classes: {config.model.head.name} on "
        f"{config.model.backbone.name}, exported by densevision {metadata.version}.",
        "## Run it",
        f'```python\nimport densevision\n\nmodel = densevision.load("{exported.path.name}")\n'
        f'result = model.predict("picture.jpg")\n{_RESULTS[config.task]}\n```',
        _seen(exported, config.data.image_size),
        "Without densevision: the input is (1, 3, H, W) uint8 RGB, not normalised; the outputs, in this order, are\n\n"
        + "\n".join(f"- `{name}`: {_OUTPUTS[name]}" for name in metadata.outputs),
        "## Network",
        _table(
            ("", ""),
            [
                ("parameters", f"{params:,}"),
                (f"multiply-adds at {height}x{width}", f"{madds / 1e6:,.1f} M"),
                ("size of the file", f"{exported.size / 1e6:.2f} MB ({', '.join(p.name for p in exported.files)})"),
                ("picture sizes", _sizes(exported)),
            ],
        ),
        "## Data",
        f"Trained on the split `{config.data.train_split}` of the data set `{config.data.name}`. Classes: "
        + ", ".join(names)
        + ".",
        "## Metrics",
        _metrics(metrics),
        *(("## Precision", "\n".join(f"- {line}" for line in report.lines())) if report else ()),
        "## Latency",
        _table(("runtime", "ms", "spread"), [(row.runtime, f"{row.ms:.2f}", f"{row.spread:.1%}") for row in latency])
        + f"\n\n{conditions}"
        if latency
        else "Not measured; `densevision benchmark` does.",
        "## Limits",
        _limits(exported, config.task),
        "## Configuration",
        "<details><summary>as trained</summary>\n\n```yaml\n" + _yaml(metadata.config) + "```\n\n</details>",
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seen(exported: Exported, image_size: Sequence[int] | None) -> str:
    if exported.metadata.sizes is not None and image_size is None:
        return f"Pictures are taken at their own size, if that is among those that the file takes: {_sizes(exported)}."
    height, width = image_size if exported.metadata.sizes and image_size else exported.metadata.image_size
    return f"Any picture will do; it is resized to {height}x{width} pixels."


def _sizes(exported: Exported) -> str:
    height, width = exported.metadata.image_size
    if exported.metadata.sizes is None:
        return f"{height}x{width} alone"
    (low, high), (left, right) = exported.metadata.sizes
    return f"{low} to {high} by {left} to {right}, written at {height}x{width}"


def _metrics(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not measured; `densevision evaluate CHECKPOINT --json FILE` does, and `--metrics FILE` puts it here."
    said = f"On the split `{metrics['split']}` ({metrics['pictures']} pictures), of the checkpoint in PyTorch:"
    overall = [(key, f"{100 * value:.2f}") for key, value in metrics.items() if isinstance(value, float)]
    by_class = {name: metrics[key] for key, name in _BY_CLASS.items() if isinstance(metrics.get(key), dict)}
    parts = [said, _table(("", "%"), overall)]
    if by_class:
        classes = list(next(iter(by_class.values())))
        rows = [(name, *(_percent(values.get(name)) for values in by_class.values())) for name in classes]
        parts.append(_table(("class", *by_class), rows))
    return "\n\n".join(parts)


def _percent(value: float | None) -> str:
    return "does not occur" if value is None else f"{100 * value:.2f}"


def _limits(exported: Exported, task: str) -> str:
    found, overlap = exported.agreement, TOLERANCES[exported.metadata.precision].overlap
    same = {
        "segmentation": "of the pixels got the same class",
        "detection": f"of the detections were found again (class, score, overlap of {overlap} or more)",
        "classification": "got the same first class",
    }[task]
    difference = "" if found.difference is None else f" its outputs differed by at most {found.difference:.1e};"
    # what int8 costs stands above; here it is whether the runtime rounds as PyTorch does
    reference = "its rounded network" if exported.metadata.precision == "int8" else "the checkpoint"
    lines = [
        f"compared with {reference} in PyTorch on real pictures ({found.pictures}):{difference} "
        f"{found.share:.2%} {same}",
        *([lost] if (lost := found.lost()) else ()),
        "it knows the classes above and no others; everything in a picture is given one of them"
        if task != "detection"
        else "it finds the classes above and no others",
        "pictures unlike those of its data set (other cameras, weather, places) are beyond what was measured here",
        "not judged for decisions about people's safety",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _yaml(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def card_path(exported: Path) -> Path:
    """Where the card of a file lies."""
    return exported.with_name(f"{exported.name}.md")
