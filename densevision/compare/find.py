"""What the words of the command mean: paths first, W&B's projects where there is no such path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from densevision.compare.runs import Run, RunPicture, distinct_names, flat_config, read_run_directory
from densevision.compare.wandb_file import read_wandb_file
from densevision.errors import UserError
from densevision.paths import is_there

_STEP = "trainer/global_step"


def find_runs(words: Sequence[str]) -> tuple[list[Run], list[str]]:
    """All runs that the words name, in their order, each once.

    Args:
        words: run directories, folders of them, W&B's offline runs (their folders, files, or the ``wandb`` folder
            that holds them), or ``[ENTITY/]PROJECT`` of W&B.

    Returns:
        the runs, and a sentence about each that could not be read.

    Raises:
        UserError: there is no run at all.
    """
    runs: dict[str, Run] = {}
    complaints: list[str] = []
    for word in words:
        try:
            readers = list(_readers(word))
        except UserError as error:
            complaints.append(str(error))
            continue
        for place, read in readers:
            try:
                runs.setdefault(place, read())
            except UserError as error:
                complaints.append(str(error))
    if not runs:
        raise UserError("; ".join(complaints) or "no run is named")
    found = list(runs.values())
    distinct_names(found)
    return found, complaints


def _readers(word: str) -> Iterator[tuple[str, Any]]:
    """(place, function that reads the run there) of every run that a word names."""
    path = Path(word)
    if not is_there(path):
        yield from _online(word)
        return
    found = list(_below(path)) or [entry for folder in _folders(path) for entry in _below(folder)]
    if not found and (path / "search.yaml").is_file():
        raise UserError(
            f"{path} is a search that has trained no network (search.retrain=none): its trials stand in history.jsonl "
            f"and pareto.png there; to compare what it found, train with model.backbone.arch={path}/arch.yaml"
        )
    if not found:
        raise UserError(
            f"{path} is no run: it has neither config.yaml nor a W&B file (run-ID.wandb), nor have its folders"
        )
    yield from found


def _below(path: Path) -> Iterator[tuple[str, Any]]:
    if (path / "config.yaml").is_file() or (path / "metrics.jsonl").is_file():
        yield str(path.resolve()), lambda: read_run_directory(path)
        return
    files = [path] if path.suffix == ".wandb" else sorted(path.glob("run-*.wandb"))
    for file in files:
        # a run that was resumed has a folder for each part
        parts = sorted(file.resolve().parent.parent.glob(f"*/{file.name}")) or [file]
        yield str(parts[0]), lambda parts=parts: read_wandb_run(parts)


def _folders(path: Path) -> list[Path]:
    return (
        sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()) if path.is_dir() else []
    )


def read_wandb_run(files: Sequence[Path]) -> Run:
    """One run from W&B's files of its parts, in the order of time; of a step logged twice the later counts.

    Raises:
        UserError: a file cannot be read, or holds no run.
    """
    parts = [read_wandb_file(file) for file in files]
    config = parts[-1]["config"]
    origin = config.pop("origin", {})
    lines: dict[tuple[Any, bool], dict[str, Any]] = {}
    for part in parts:
        for entry in part["history"]:
            _add(lines, entry)
    run = Run(
        name=parts[-1]["name"] or files[-1].stem,
        place=str(files[-1].parent),
        config=flat_config(config),
        origin=origin,
        history=sorted(lines.values(), key=lambda line: line["step"]),
        finished=parts[-1]["exit_code"] == 0,
    )
    shown = [
        (entry, file.parent / "files")
        for part, file in zip(parts, files, strict=True)
        for entry in part["history"]
        if "val/pictures.filenames" in entry
    ]
    if shown:
        run.pictures = _media(*shown[-1], run.section("classes"), run)
    return run


def _add(lines: dict[tuple[Any, bool], dict[str, Any]], entry: dict[str, Any]) -> None:
    """Take in an entry of W&B's history as a line of ``metrics.jsonl`` has it: training and evaluation apart."""
    if any(key.endswith("._type") for key in entry):
        return  # pictures and charts
    values = {k: v for k, v in entry.items() if k.startswith(("train/", "val/")) and isinstance(v, int | float)}
    if values and isinstance(entry.get(_STEP), int):
        judged = any(key.startswith("val/") for key in values)
        place = {"step": entry[_STEP], "images_seen": entry.get("images_seen")}
        lines[entry[_STEP], judged] = {**{k: v for k, v in place.items() if v is not None}, **values}


def _media(entry: dict[str, Any], folder: Path, classes: dict[str, Any], run: Run) -> list[RunPicture]:
    """The pictures that W&B keeps beside a run, their masks and boxes drawn over them."""
    from densevision.compare.media import drawn_panels

    files = entry["val/pictures.filenames"]
    pictures = []
    try:
        drawn = [
            [{kind: folder / one["path"] for kind, one in of_one.items()} for of_one in listed]
            for listed in (entry.get(f"val/pictures.all_{what}") or [{}] * len(files) for what in ("masks", "boxes"))
        ]
        for name, file, masks, boxes in zip(entry["val/pictures.captions"], files, *drawn, strict=True):
            pictures.append(RunPicture(name, drawn_panels(folder / file, masks, boxes, classes)))
    except (UserError, OSError, KeyError, ValueError, TypeError) as error:
        run.notes.append(f"{run.place}: the pictures cannot be read ({error})")
    return pictures


def _online(word: str) -> Iterator[tuple[str, Any]]:
    import wandb

    parts = word.split("/")
    if len(parts) > 2 or not all(parts) or word.startswith(("/", ".")):
        raise UserError(f"there is no run directory {word}")
    try:
        if not wandb.login(prompt=False):
            raise UserError(
                f"there is no run directory {word}, and to look for a W&B project of that name needs a wandb login"
            )
        listed = list(wandb.Api(timeout=20).runs(word))
    except UserError:
        raise
    except Exception as error:  # W&B raises many types, for a project that is not there and for no network
        reason = " ".join(str(error).split())
        raise UserError(f"there is no run directory {word}, and W&B has no project of that name: {reason}") from error
    for run in listed:
        yield run.url, lambda run=run: _online_run(run)


def _online_run(run: Any) -> Run:
    config = {key: value for key, value in run.config.items() if key != "_wandb"}
    origin = config.pop("origin", {})
    lines: dict[tuple[Any, bool], dict[str, Any]] = {}
    for entry in run.scan_history():
        _add(lines, entry)
    history = sorted(lines.values(), key=lambda line: line["step"])
    return Run(run.name, run.url, flat_config(config), origin, history, finished=run.state == "finished")
