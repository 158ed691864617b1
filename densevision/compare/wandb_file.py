"""Read the file of a W&B run, with W&B's own message types and no server.

The file is a log in LevelDB's format: seven bytes of header, then blocks of 32 KiB that hold records or parts of them,
each after a header of checksum, length and kind; a record is a message of ``wandb.proto``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densevision.errors import UserError

_BLOCK, _HEADER, _FILE_HEADER = 32768, 7, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_wandb_file(path: Path) -> dict[str, Any]:
    """What a run wrote, as far as it got.

    Returns:
        ``config``, ``summary`` (nested dicts), ``history`` (a dict of flat keys an entry), ``name``, ``project`` and
        ``exit_code``, None where the run did not end.

    Raises:
        UserError: the file is none of W&B's, or holds no run.
    """
    from wandb.proto import wandb_internal_pb2 as messages

    run: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "name": None, "project": None, "exit_code": None}
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data.startswith(b":W&B"):
        raise UserError(f"{path} is no file of a W&B run")
    for content in _records(data):
        try:
            record = messages.Record.FromString(content)  # type: ignore[attr-defined]
        except Exception:  # protobuf's own type, which no public name has; what is whole before it counts
            break
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run["name"], run["project"] = record.run.display_name, record.run.project
            _update(run["config"], record.run.config.update)
        elif kind == "config":
            _update(run["config"], record.config.update)
        elif kind == "summary":
            _update(run["summary"], record.summary.update)
        elif kind == "history":
            run["history"].append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "exit":
            run["exit_code"] = record.exit.exit_code
    if run["name"] is None:
        raise UserError(f"{path} holds no run: it is damaged, or was killed as it began")
    run["config"].pop("_wandb", None)
    return run


def _records(data: bytes) -> Iterator[bytes]:
    """Whole records up to the first that is not."""
    place, parts = _FILE_HEADER, bytearray()
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:  # too little for a header: filled with zeros
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        content = data[place + _HEADER : place + _HEADER + length]
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(content) < length:
            return
        place += _HEADER + length
        if kind in (_FULL, _FIRST):
            parts.clear()
        parts += content
        if kind in (_FULL, _LAST):
            yield bytes(parts)


def _update(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *way, last = list(item.nested_key) or [item.key]
        section = target
        for key in way:
            section = section.setdefault(key, {})
        section[last] = json.loads(item.value_json)


def _key(item: Any) -> str:
    return ".".join(item.nested_key) if item.nested_key else item.key
