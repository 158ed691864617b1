"""What is there. Path's own questions raise where a name is too long or no folder may be looked into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from densevision.errors import UserError


def is_folder(path: str | Path) -> bool:
    """Whether this is a folder; False of what no file can be called.

    Raises:
        UserError: nobody is told, as a folder above it may not be looked into.
    """
    return stat.S_ISDIR(_mode(path))


def is_file(path: str | Path) -> bool:
    """Whether this is a file; else as :func:`is_folder`."""
    return stat.S_ISREG(_mode(path))


def is_there(path: str | Path) -> bool:
    """Whether this is anything; else as :func:`is_folder`."""
    return _mode(path) != 0


def names_in(folder: str | Path, folders_only: bool = False) -> list[str]:
    """What is in a folder, sorted.

    Raises:
        UserError: it may not be listed, or is none.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not folders_only or entry.is_dir())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be listed: {getattr(error, 'strerror', None) or error}") from error


def _mode(path: str | Path) -> int:
    try:
        return os.stat(path).st_mode
    except PermissionError as error:
        raise UserError(f"{path} cannot be looked at: {error.strerror}") from error
    except (OSError, ValueError):  # ValueError: the name has a NUL
        return 0
