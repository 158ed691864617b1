"""What a run left behind, whoever kept it: a run directory, W&B's file of an offline run, or W&B's server."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from densevision.config.loader import flat_items
from densevision.errors import UserError

UNSTEADY = 0.2  # latencies of which passes were further apart say little


@dataclass(frozen=True)
class RunPicture:
    """A picture that a run shows. name: in its data set. panels: "picture", "truth", "prediction" as JPEG or PNG."""

    name: str
    panels: dict[str, bytes]


@dataclass
class Run:
    """One training.

    name: for people. place: where it lies. config: dotted key -> value. origin: as ``origin.json``. history: the lines
    of ``metrics.jsonl``. finished: it reached its end. latencies: milliseconds of one picture, by how they were
    measured, as ``benchmark --json`` wrote them. notes: sentences about what is missing or damaged.
    """

    name: str
    place: str
    config: dict[str, Any]
    origin: dict[str, Any]
    history: list[dict[str, Any]]
    finished: bool
    latencies: dict[str, float] = field(default_factory=dict)
    pictures: list[RunPicture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def monitor(self) -> str:
        """The score that chooses the best, greater being better."""
        if "monitor" in self.origin:
            return str(self.origin["monitor"])
        first = (key for line in self.history for key in line if key.startswith("val/"))  # it is written first
        return next(first, "val/score").removeprefix("val/")

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(pictures seen, value) of every line that has the key; steps where a line does not count pictures."""
        pairs = [(line.get("images_seen", line.get("step")), line.get(key)) for line in self.history]
        return [(float(x), float(y)) for x, y in pairs if x is not None and y is not None]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The lines with the monitored score."""
        return [line for line in self.history if line.get(f"val/{self.monitor}") is not None]

    @property
    def best_line(self) -> dict[str, Any] | None:
        """The first of the evaluations with the greatest score."""
        return max(self.evaluations, key=lambda line: line[f"val/{self.monitor}"], default=None)

    @property
    def best(self) -> float | None:
        """The greatest score."""
        return None if self.best_line is None else float(self.best_line[f"val/{self.monitor}"])

    @property
    def last(self) -> float | None:
        """The score of the last evaluation."""
        return float(self.evaluations[-1][f"val/{self.monitor}"]) if self.evaluations else None

    @property
    def per_class(self) -> dict[str, float]:
        """Class name -> score, of the best evaluation."""
        line = self.best_line or {}
        parts = {key: key.split("/", 2) for key in line if key.startswith("val/") and key.count("/") >= 2}
        return {parts[key][2]: line[key] for key in parts if line[key] is not None}

    @property
    def images_per_second(self) -> float | None:
        """Median of the training's, its first line left out: it holds what is done once."""
        speeds = [y for _, y in self.curve("train/images_per_second")]
        return statistics.median(speeds[1:] or speeds) if speeds else None

    @property
    def images_seen(self) -> float:
        """Training pictures so far."""
        return max((x for x, _ in self.curve("train/loss")), default=0.0)

    def model_figure(self, name: str) -> Any:
        """``parameters``, ``paper_madds``, ``image_size``; None where the run did not write it."""
        return self.section("model").get(name)

    def section(self, *names: str) -> dict[str, Any]:
        """A part of the origin by its keys; empty where there is none."""
        found: Any = self.origin
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


def read_run_directory(folder: Path) -> Run:
    """A run directory, finished or not.

    Raises:
        UserError: it has no readable configuration.
    """
    config = _read(folder / "config.yaml", yaml.safe_load)
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.yaml'} holds no keys and values")
    run = Run(folder.name, str(folder), flat_config(config), {}, [], finished=False)
    run.origin = _optional(folder / "origin.json", run)
    summary = _optional(folder / "summary.json", run)
    run.latencies = _latencies(folder / "latency.json", run)
    run.history = _history(folder / "metrics.jsonl", run)
    last_step = max((line["step"] for line in run.history), default=0)
    steps = summary.get("steps", 0)
    if not isinstance(steps, int):
        run.notes.append(
            f"{folder / 'summary.json'} is damaged: its steps are {steps!r}; the run counts as not finished"
        )
        steps = 0
    run.finished = steps >= last_step > 0
    run.pictures = _pictures(folder / "pictures" / "latest", run)
    return run


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value. A network's own table, which fills a page, is its family, its length and a digest."""
    items = {}
    table: dict[str, Any] = {}
    for key, value in flat_items(config):
        if key.startswith("model.backbone.arch."):
            table[key] = value
        else:
            items[key] = value
    if table:
        digest = hashlib.blake2b(json.dumps(table, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
        family, blocks = (table.get(f"model.backbone.arch.{name}") for name in ("family", "blocks"))
        length = f"{len(blocks)} blocks" if isinstance(blocks, list) else "?"
        items["model.backbone.arch"] = f"{family}, {length}, table {digest}"
    return items


def _latencies(file: Path, run: Run) -> dict[str, float]:
    """Of this run's own network: the only one in the file, or the one that lies in its directory."""
    if not file.exists():
        return {}
    stored = _optional(file, run)
    try:
        threads, rows = stored["threads"], stored["rows"]
        names = {row["name"] for row in rows}
        own = [row for row in rows if len(names) == 1 or file.parent.resolve() in Path(row["name"]).resolve().parents]
        by = f"{threads} thread{'' if threads == 1 else 's'}"
        found = {f"{row['runtime']}, {'x'.join(map(str, row['image_size']))}, {by}": float(row["ms"]) for row in own}
        unsteady = max((float(row.get("spread", 0)) for row in own), default=0)
    except (KeyError, TypeError, ValueError):
        run.notes.append(f"{file} is not what benchmark --json writes (threads, and rows with ms), and is left out")
        return {}
    if unsteady > UNSTEADY:
        run.notes.append(f"{file}: its passes were {unsteady:.0%} apart; measure again on a machine that is idle")
    if not found:
        run.notes.append(f"{file} has no latency of this run's network but of {', '.join(sorted(names))}")
    return found


def _history(file: Path, run: Run) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        run.notes.append(f"{file} cannot be read: {error.strerror or error}")
        return []
    history: list[dict[str, Any]] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            values = {key: value for key, value in entry.items() if isinstance(value, int | float | None)}
            history.append(values)
    if len(history) < len(lines):
        run.notes.append(f"{file}: {len(lines) - len(history)} of {len(lines)} lines are damaged and left out")
    return history


def _pictures(folder: Path, run: Run) -> list[RunPicture]:
    pictures = []
    try:
        listed = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))["pictures"]
        for entry in listed:
            panels = {panel: (folder / Path(file).name).read_bytes() for panel, file in entry["panels"].items()}
            pictures.append(RunPicture(str(entry["name"]), panels))
    except FileNotFoundError:
        pass  # none were drawn yet
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        run.notes.append(f"{folder}: the pictures cannot be read ({error})")
    return pictures


def _optional(file: Path, run: Run) -> dict[str, Any]:
    try:
        content = _read(file, json.loads)
    except UserError as error:
        if file.exists():
            run.notes.append(str(error))
        return {}
    if not isinstance(content, dict):
        run.notes.append(f"{file} is damaged: it holds no keys and values")
        return {}
    return content


def _read(file: Path, parse: Any) -> Any:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is not there") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error


def distinct_names(runs: Sequence[Run]) -> None:
    """Lengthen names that several runs have by the folders above, as far as it takes."""
    for length in range(2, 6):
        names = [run.name for run in runs]
        for run in runs:
            if names.count(run.name) > 1:
                run.name = "/".join(Path(run.place).parts[-length:])
