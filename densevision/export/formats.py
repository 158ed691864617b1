"""The file formats by name, by suffix, and whether what they need is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from densevision.config.lookup import lookup
from densevision.errors import UserError
from densevision.export.runtimes import ExecuTorch, LiteRT, Onnx, OpenVino, Runtime, TorchExport
from densevision.paths import is_file

FORMATS: dict[str, type[Runtime]] = {
    "torch_export": TorchExport,
    "onnx": Onnx,
    "openvino": OpenVino,
    "executorch": ExecuTorch,
    "litert": LiteRT,
}


def installed(name: str) -> bool:
    """Whether the packages of a format are here; they are not imported."""
    return all(find_spec(package) for package in FORMATS[name].packages)


def is_exported(path: str | Path) -> bool:
    """Whether a file's suffix is that of a format."""
    return Path(path).suffix in {kind.suffix for kind in FORMATS.values()}


def format_of(path: str | Path) -> str:
    """The format that a file's suffix tells.

    Raises:
        UserError: none has such files.
    """
    for name, kind in FORMATS.items():
        if kind.suffix == Path(path).suffix:
            return name
    known = ", ".join(f"{kind.suffix} of {name}" for name, kind in FORMATS.items())
    raise UserError(f"{path}: '{Path(path).suffix}' is no suffix of an exported file; known: {known}")


def format_named(name: str) -> type[Runtime]:
    """A format whose packages are installed.

    Raises:
        UserError: there is no such format, or its packages are missing; says what installs them.
    """
    kind = lookup("format", name, FORMATS)
    if not installed(name):
        needed = " and ".join(kind.packages)
        raise UserError(f"{name} needs {needed}: pip install 'densevision[{kind.extra}]'")
    return kind


def open_file(path: str | Path, threads: int | None = None) -> Runtime:
    """An exported file in its runtime, which the suffix tells.

    Raises:
        UserError: no such file, an unknown suffix, a runtime that is not installed, or a file that it cannot read.
    """
    path = Path(path)
    name = format_of(path)
    if not is_file(path):
        raise UserError(f"{path} does not exist")
    try:
        return format_named(name)(path, threads)
    except UserError:
        raise
    except Exception as error:  # every runtime has its own for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is no whole {name} file: {reason}") from error
