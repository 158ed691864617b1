"""The floors of the house: who may import whom (the table of the design), and which library stays where."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"errors", "structures", "config", "io", "damage", "jpeg", "pillow", "paths", "checkpoint", "launch", "video"},
    {"layers"},
    {"backbones"},
    {"segmentation", "detection", "classification"},
    {"model_heads", "model_backbone"},
    {"models"},
    {"metrics", "visualize", "complexity", "quantize", "export"},
    {"latency"},
    {"latency_table"},
    {"training"},
    {"tasks"},
    {"inference", "paper_tables", "paper_classifiers", "compare", "search"},
    {"experiment"},
    {"evaluation", "search_trial", "search_supernet", "search_training", "dry_run"},
    {"search_run"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LIBRARY_HOMES = {
    "lightning": ("training", "tasks", "search", "search_trial", "search_supernet", "experiment", "cli", "datamodules"),
    "wandb": ("training/loggers.py", "compare"),
    "albumentations": ("datamodules/transforms.py",),
}
FILES = sorted([*(ROOT / "densevision").rglob("*.py"), *(ROOT / "datamodules").rglob("*.py")])


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    return module.split(".")[1] if module.startswith("densevision.") else ""


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    for module in imports(file):
        if parts[0] == "datamodules":
            if module.startswith("densevision."):
                assert room(module) in FLOORS[0], f"{module}: datamodules know floor 0 only"
            continue
        if module.split(".")[0] == "datamodules":
            assert parts[1] == "experiment", f"{module}: only densevision/experiment.py knows the datamodules"
        target = room(module)
        if parts[0] == "densevision" and len(parts) > 1 and parts[1] in FLOOR and target in FLOOR:
            same_room = target == parts[1]
            ground = FLOOR[target] == FLOOR[parts[1]] == 0
            assert same_room or ground or FLOOR[target] < FLOOR[parts[1]], f"{module}: an import that goes up"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_libraries_stay_at_home(file):
    path = str(file.relative_to(ROOT))
    inside = path.removeprefix("densevision/")
    for module in imports(file):
        library = module.split(".")[0]
        if library in LIBRARY_HOMES:
            homes = LIBRARY_HOMES[library]
            assert any(inside == h or inside == f"{h}.py" or inside.startswith(f"{h}/") for h in homes), module


def test_every_room_has_a_floor():
    rooms = {p.stem for p in (ROOT / "densevision").iterdir() if not p.name.startswith("_") and p.name != "py.typed"}
    assert rooms - set(FLOOR) == set()


def test_import_is_light_and_quiet():
    """No network, no thread, nothing but one variable set, and none of the heavy libraries loaded."""
    script = (
        "import os, socket, sys, threading\n"
        "def refuse(*a): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "before = dict(os.environ)\n"
        "import densevision, densevision.cli\n"
        "assert threading.active_count() == 1\n"
        "assert {k for k in os.environ if os.environ[k] != before.get(k)} <= {'NO_ALBUMENTATIONS_UPDATE'}\n"
        "assert not {'torch', 'lightning', 'wandb', 'albumentations'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
