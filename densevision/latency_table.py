"""What a network takes on a machine, as a sum over its parts: each is measured once, when it is first asked for.

A table is a file: the machine, and the milliseconds of every part by a key that says all of it. It grows on the
machine that it was measured on and is read on any other, so that a phone's serves a search that runs elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from densevision.backbones import Block, ConvSpec, layer_to_dict
from densevision.errors import UserError
from densevision.export import optimised
from densevision.io import atomic_write, make_folder, write_json
from densevision.latency import Network, module_run, random_pictures, thread_clock, time_calls, write_module
from densevision.layers import ConvNormAct, NormSpec

Size = tuple[int, int]
MapShape = tuple[int, int, int]  # channels, height, width
_NORM = NormSpec(momentum=0.1, eps=1e-3)  # of no meaning: it is folded into the convolutions


class LatencyTable:
    """Milliseconds of parts of networks, of one picture on one thread of one machine.

    Measured is in ONNX Runtime, by the protocol of :mod:`densevision.latency`, and kept at once.

    Args:
        file: None for this machine's own, in the user's cache. One that is not there begins empty; one of another
            machine is only read.
        parts: a folder in which every part that is asked for is written as an ONNX file too, and ``parts.json``, file
            name -> key: what a table of another machine is made from.

    Attributes:
        used: what was asked for so far, by key.

    Raises:
        UserError: a file that is no table. Asking for a part: ONNX Runtime is not installed to measure it, or another
            machine's table has it not.
    """

    def __init__(self, file: Path | None = None, parts: Path | None = None) -> None:
        self.file = file or default_file()
        self.machine, self.known = read_table(self.file) if self.file.exists() else (this_machine(), {})
        self.own = self.machine == this_machine()
        self.used: dict[str, float] = {}
        self.parts = parts
        self._written: dict[str, str] = {}

    def layer(self, layer: Block | ConvSpec, size: Size) -> float:
        """Of a block, the stem or the last 1x1 that reads maps of (H, W)."""

        def part() -> tuple[nn.Module, Sequence[Tensor]]:
            module = (
                ConvNormAct(
                    layer.in_channels, layer.out_channels, layer.kernel, layer.stride, act=layer.act, norm=_NORM
                )
                if isinstance(layer, ConvSpec)
                else layer.build(_NORM, until="output")
            )
            return module, [_map((layer.in_channels, *size))]

        return self._milliseconds(layer_key(layer, size), part)

    def head(self, model: Network, maps: Sequence[MapShape]) -> float:
        """Of the head of a model, that reads maps of (C, H, W)."""
        return self._milliseconds(head_key(model.head, maps), lambda: (model.head, [_map(shape) for shape in maps]))

    def preprocess(self, model: Network, size: Size) -> float:
        """Of what turns a picture of (H, W) into a network's input."""
        key = f"preprocess mode={model.preprocess.mode} at {size[0]}x{size[1]}"
        return self._milliseconds(key, lambda: (model.preprocess, [torch.from_numpy(random_pictures(size))]))

    def _milliseconds(self, key: str, part: Callable[[], tuple[nn.Module, Sequence[Tensor]]]) -> float:
        if self.parts and key not in self._written.values():
            self._write(self.parts, key, *part())
        if key not in self.known:
            if not self.own:
                raise UserError(
                    f"{self.file} has no '{key}' and was measured on another machine "
                    f"({self.machine.get('processor', 'unknown')}); measure that part there and add it",
                    key="search.table",
                )
            self.known[key] = measure_part(*part())
            self._keep()
        self.used[key] = self.known[key]
        return self.known[key]

    def _write(self, folder: Path, key: str, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        make_folder(folder)
        name = f"{_digest(key)}.onnx"
        write_module(optimised(module), inputs, folder / name)
        self._written[name] = key
        write_json(folder / "parts.json", self._written)

    def _keep(self) -> None:
        if self.file.exists():  # another search may have measured meanwhile
            self.known = read_table(self.file)[1] | self.known
        write_table(self.file, self.machine, self.known)


def layer_key(layer: Block | ConvSpec, size: Size) -> str:
    """``inverted_residual in_channels=16 expansion=64 ... act=relu expand=True residual=False at 88x120``."""
    values = layer_to_dict(layer)
    words = [f"{name}={value}" for name, value in values.items() if name not in ("op", "stage")]
    return f"{values['op']} {' '.join(words)} at {size[0]}x{size[1]}"


def head_key(head: nn.Module, maps: Sequence[MapShape]) -> str:
    """``LRASPPHead 1f0c... at 576x11x15 88x22x30``; the digest is that of all its layers."""
    return f"{type(head).__name__} {_digest(repr(head))} at {' '.join('x'.join(map(str, shape)) for shape in maps)}"


def measure_part(module: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Milliseconds of a part alone, with normalisation folded, in ONNX Runtime on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        run = module_run(optimised(module), inputs, Path(folder) / "part.onnx")
        return float(f"{time_calls({'': run}, clock=thread_clock())[''].ms:.4g}")


def this_machine() -> dict[str, str]:
    """What milliseconds depend on beside the network."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        runtime = f"onnxruntime {version('onnxruntime')}"
    except PackageNotFoundError:
        runtime = "none"
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": runtime,
        "threads": "1",
    }


def default_file() -> Path:
    """This machine's table in the user's cache; another processor or runtime has another."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "densevision"
    return folder / f"latency-{_digest(json.dumps(this_machine(), sort_keys=True))}.json"


def read_table(file: Path) -> tuple[dict[str, str], dict[str, float]]:
    """The machine of a file, and its milliseconds by key: finite and not negative.

    Raises:
        UserError: it cannot be read, or is no table; names the entry that is wrong.
    """
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is no table of latencies: {error}", key="search.table") from error
    for name in ("machine", "milliseconds"):
        part = stored.get(name) if isinstance(stored, dict) else None
        if not isinstance(part, dict):
            raise UserError(
                f"{file} is no table of latencies: '{name}' is no mapping there (see docs/search.md)", "search.table"
            )
    machine, milliseconds = stored["machine"], stored["milliseconds"]
    for key, value in machine.items():
        if not isinstance(value, str):
            raise UserError(f"{file}: machine: '{key}': expected a text, got {value!r}", key="search.table")
    for key, value in milliseconds.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise UserError(f"{file}: '{key}': expected milliseconds, not below 0, got {value!r}", key="search.table")
    return machine, milliseconds


def write_table(file: Path, machine: dict[str, str], milliseconds: dict[str, float]) -> None:
    """A file that :func:`read_table` reads, a line a part."""
    make_folder(file.parent)
    table = {"machine": machine, "milliseconds": dict(sorted(milliseconds.items()))}
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _map(shape: MapShape) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32))


def _processor() -> str:
    """The processor's name as people know it."""
    try:
        found = re.search(r"^(?:model name|Hardware)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
        if platform.system() == "Darwin":
            return subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=True
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()
