"""An :class:`Architecture` as plain values and as a YAML file of one line a block; exact in both directions.

What a search ends with and ``model.backbone.arch`` names. A file holds every field of every block that has no default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from densevision.backbones.base import Architecture, Block, BlockSpec, ConvSpec, PointwiseSpec, SandGlassSpec
from densevision.config.loader import read_yaml
from densevision.config.lookup import lookup, unknown_name
from densevision.errors import UserError
from densevision.io import atomic_write
from densevision.layers import NormSpec
from densevision.layers.conv import ACTIVATIONS
from densevision.layers.squeeze_excite import GATES
from densevision.paths import is_file

OPERATORS: dict[str, type[Block]] = {
    "inverted_residual": BlockSpec,
    "sandglass": SandGlassSpec,
    "pointwise": PointwiseSpec,
}
_NAMES = {spec: name for name, spec in OPERATORS.items()}
_HEADER = "# A network of densevision, one line a block: model.backbone.arch=THIS FILE\n"
_MAY_BE_ZERO = ("squeeze", "residual_channels", "pre_logits", "momentum", "eps")


def read_architecture(path: str | Path) -> Architecture:
    """The network of a file.

    Raises:
        UserError: no such file, or a mistake in it; names the file, the key and what was expected.
    """
    path = Path(path).expanduser()
    if not is_file(path):
        raise UserError(f"no table of a network at {path}")
    return architecture_from_dict(read_yaml(path), str(path))


def write_architecture(architecture: Architecture, path: str | Path, comment: str = "") -> None:
    """Write a file that :func:`read_architecture` reads as an equal network; ``comment`` is a line above it."""
    lines = []
    for key, value in architecture_to_dict(architecture).items():
        if key == "blocks":
            lines += ["blocks:", *(f"- {_flow(block)}" for block in value)]
        else:
            lines.append(f"{key}: {_flow(value)}")
    with atomic_write(path) as partial:
        head = _HEADER + (f"# {comment}\n" if comment else "")
        partial.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def architecture_to_dict(architecture: Architecture) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers, in the order of the file."""
    values = _fields(architecture)
    values["blocks"] = [layer_to_dict(block) for block in architecture.blocks]
    for key in ("stem", "norm", "last_conv"):
        part = getattr(architecture, key)
        values[key] = None if part is None else _fields(part)
    return values


def layer_to_dict(layer: Block | ConvSpec) -> dict[str, Any]:
    """A block, the stem or the last 1x1 as plain values, ``op`` the first."""
    return {"op": "conv" if isinstance(layer, ConvSpec) else _NAMES[type(layer)], **_fields(layer)}


def architecture_from_dict(values: Mapping[str, Any], source: str) -> Architecture:
    """The network that plain values say; ``source`` names where they stand.

    Raises:
        UserError: a key is unknown or missing, a value has a wrong type or does not fit its neighbours.
    """
    keys = _checked(values, Architecture, source)
    if not isinstance(keys["blocks"], list) or not keys["blocks"]:
        raise UserError(f"{source}: blocks: expected a list of blocks, got {_short(keys['blocks'])}")
    blocks = []
    for index, block in enumerate(keys["blocks"]):
        where = f"{source}: blocks[{index}]"
        if not isinstance(block, Mapping) or "op" not in block:
            raise UserError(f"{where}: expected keys with op ({', '.join(OPERATORS)}) among them, got {_short(block)}")
        try:
            operator = lookup("operator", str(block["op"]), OPERATORS)
        except UserError as error:
            raise UserError(f"{where}.op: {error}") from error
        blocks.append(_built(operator, {k: v for k, v in block.items() if k != "op"}, where))
    last = keys["last_conv"]
    keys |= {
        "blocks": tuple(blocks),
        "stem": _built(ConvSpec, keys["stem"], f"{source}: stem"),
        "last_conv": None if last is None else _built(ConvSpec, last, f"{source}: last_conv"),
        "norm": _built(NormSpec, keys["norm"], f"{source}: norm"),
    }
    architecture = Architecture(**keys)
    _check(architecture, source)
    return architecture


def _fields(part: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults, by name."""
    return {
        field.name: getattr(part, field.name)
        for field in dataclasses.fields(part)
        if field.default is dataclasses.MISSING or getattr(part, field.name) != field.default
    }


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _built(schema: Callable[..., Any], values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        names = ", ".join(get_type_hints(schema))
        raise UserError(f"{where}: expected keys ({names}), got {_short(values)}")
    return schema(**_checked(values, schema, where))


def _checked(values: Mapping[str, Any], schema: Any, where: str) -> dict[str, Any]:
    """``values`` with every key known, every required one there, and every plain value of its type."""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    hints = get_type_hints(schema)
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{where}: {unknown_name('key', str(key), fields)}")
        _check_type(value, hints[key], f"{where}.{key}" if where.endswith("]") else f"{where}: {key}", key)
    missing = [n for n, field in fields.items() if n not in values and field.default is dataclasses.MISSING]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} is not given")
    return dict(values)


def _check_type(value: Any, hint: Any, where: str, key: str) -> None:
    if key in ("act", "squeeze_act", "project_act", "gate") and (value is not None or key != "project_act"):
        try:
            lookup("gate" if key == "gate" else "activation", str(value), GATES if key == "gate" else ACTIVATIONS)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    elif hint is bool and not isinstance(value, bool):
        raise UserError(f"{where}: expected true or false, got {_short(value)}")
    elif hint is str and not isinstance(value, str):
        raise UserError(f"{where}: expected a word, got {_short(value)}")
    elif hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        lowest = 0 if key in _MAY_BE_ZERO else 1
        if not number or value < lowest:
            kind = "a whole number" if hint is int else "a number"
            raise UserError(f"{where}: expected {kind} of at least {lowest}, got {_short(value)}")


def _check(architecture: Architecture, source: str) -> None:
    """What no field can say alone: that each layer reads what the one before it gives, and that stages are in order."""
    channels, stage = architecture.stem.out_channels, 1
    if architecture.stem.stride != 2:
        raise UserError(f"{source}: stem: stride: expected 2, got {architecture.stem.stride}")
    _check_kernel(architecture.stem, f"{source}: stem")
    for index, block in enumerate(architecture.blocks):
        where = f"{source}: blocks[{index}]"
        if block.in_channels != channels:
            raise UserError(f"{where}.in_channels: expected {channels}, as the layer before it gives, got {_in(block)}")
        if block.stage not in (stage, stage + 1) or block.stage > 5:
            highest = min(stage + 1, 5)
            raise UserError(f"{where}.stage: expected {stage} or {highest} after {stage}, got {block.stage}")
        if block.stride not in (1, 2) or (block.stride == 2 and block.stage == stage):
            raise UserError(f"{where}.stride: expected 1, or 2 in the first block of a stage, got {block.stride}")
        _check_kernel(block, where)
        same = block.stride == 1 and block.in_channels == block.out_channels
        if isinstance(block, BlockSpec):
            if block.residual and not same:
                raise UserError(f"{where}.residual: a sum needs stride 1 and as many channels out as in")
            if not block.expand and block.expansion != block.in_channels:
                raise UserError(
                    f"{where}.expansion: expected {block.in_channels}, as in_channels, without an expansion "
                    f"(expand: false), got {block.expansion}"
                )
        if isinstance(block, SandGlassSpec) and block.residual_channels > (block.in_channels if same else 0):
            raise UserError(f"{where}.residual_channels: a sum needs stride 1 and as many channels out as in")
        channels, stage = block.out_channels, block.stage
    if stage != 5:
        raise UserError(f"{source}: blocks: the last block is of stage {stage}; heads read stages 3 to 5")
    last = architecture.last_conv
    if last is not None and (last.in_channels, last.kernel, last.stride) != (channels, 1, 1):
        raise UserError(f"{source}: last_conv: expected in_channels {channels}, kernel 1 and stride 1, got {_in(last)}")
    try:
        lookup("feature", architecture.top, architecture.feature_info)
    except UserError as error:
        raise UserError(f"{source}: top: {error}") from error


def _check_kernel(spec: Block | ConvSpec, where: str) -> None:
    if spec.kernel % 2 == 0:
        raise UserError(f"{where}.kernel: expected an odd number, got {spec.kernel}")


def _in(spec: Block | ConvSpec) -> str:
    return f"{spec.in_channels}" if not isinstance(spec, ConvSpec) else _flow(_fields(spec))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
