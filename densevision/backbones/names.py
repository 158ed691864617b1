"""Our parameter names for those of torchvision and timm."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

_TORCHVISION_LRASPP = {
    "classifier.cbr.0": "head.local.conv",
    "classifier.cbr.1": "head.local.norm",
    "classifier.scale.1": "head.gate.0",
    "classifier.low_classifier": "head.low_classifier",
    "classifier.high_classifier": "head.high_classifier",
}
_EXTRA, _CONV_NORM = ("reduce", "depthwise", "project"), ("conv", "norm")
_PREDICTORS = {"classification": "head.class_predictors", "regression": "head.box_predictors"}
_TIMM_BLOCK = {  # inverted residual; the first block, without expansion, has other names
    "conv_pw": "expand.conv",
    "bn1": "expand.norm",
    "conv_dw": "depthwise.conv",
    "bn2": "depthwise.norm",
    "conv_pwl": "project.conv",
    "bn3": "project.norm",
    "se.conv_reduce": "se.reduce",
    "se.conv_expand": "se.expand",
}
_TIMM_FIRST_BLOCK = _TIMM_BLOCK | {
    "bn1": "depthwise.norm",
    "conv_pw": "project.conv",
    "bn2": "project.norm",
}


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``mobilenet_v2``, ``mobilenet_v3_*`` and ``lraspp_mobilenet_v3_large`` under our names.

    Args:
        state: ``features.N...`` and ``classifier.N...``, or of the segmentation model ``backbone.N...`` and
            ``classifier.cbr...``.

    Returns:
        ``backbone...`` and ``head...``; names that are not understood stay as they are.
    """
    state = {re.sub(r"^backbone\.", "features.", key): value for key, value in state.items()}
    blocks = _grouped(state, r"features\.(\d+)\.(?:conv|block)\.(.+)")
    classifier = ["head.fc"] if "classifier.0.weight" not in state else ["head.pre_logits", "head.fc"]
    linears = sorted({m[1] for key in state if (m := re.match(r"classifier\.(\d+)\.", key))}, key=int)
    prefixes = {
        "features.0.0": "backbone.stem.conv",
        "features.0.1": "backbone.stem.norm",
        **{f"classifier.{number}": own for number, own in zip(linears, classifier, strict=False)},
        **_TORCHVISION_LRASPP,
    }
    last = max((int(m[1]) for key in state if (m := re.match(r"features\.(\d+)\.", key))), default=0)
    if (str(last),) not in blocks:
        prefixes |= {f"features.{last}.0": "backbone.last_conv.conv", f"features.{last}.1": "backbone.last_conv.norm"}
    for (number,), names in blocks.items():
        style = "conv" if f"features.{number}.conv.{names[0]}" in state else "block"
        for theirs, own in _torchvision_block(names).items():
            prefixes[f"features.{number}.{style}.{theirs}"] = f"backbone.blocks.{int(number) - 1}.{own}"
    return _renamed(state, prefixes)


def _torchvision_block(names: list[str]) -> dict[str, str]:
    """V2: [expand], depthwise, then the projection's bare conv and bn. V3: [expand], depthwise, [SE], project."""
    bare = sorted({name.split(".")[0] for name in names if re.fullmatch(r"\d+\.weight", name)}, key=int)
    triples = sorted({name.split(".")[0] for name in names if re.match(r"\d+\.0\.", name)}, key=int)
    parts = ["expand", "depthwise"] if bare else ["expand", "depthwise", "project"]
    prefixes: dict[str, str] = {}
    for number, part in zip(triples, parts[-len(triples) :], strict=True):
        prefixes |= {f"{number}.0": f"{part}.conv", f"{number}.1": f"{part}.norm"}
    prefixes |= dict(zip(bare, ["project.conv", "project.norm"], strict=False))
    for number in {name.split(".")[0] for name in names if ".fc1." in name}:
        prefixes |= {f"{number}.fc1": "se.reduce", f"{number}.fc2": "se.expand"}
    return prefixes


def from_torchvision_ssdlite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``ssdlite320_mobilenet_v3_large`` under our names; what is not understood stays as it is.

    Its backbone is ``mobilenet_v3_large``, cut in two behind the expansion of the first stride-32 block.
    """
    cut = max(int(m[1]) for key in state if (m := re.match(r"backbone\.features\.0\.(\d+)\.", key)))
    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (rf"backbone\.features\.0\.{cut}\.", lambda m: f"features.{cut}.block.0."),
        (r"backbone\.features\.0\.", lambda m: "features."),
        (r"backbone\.features\.1\.0\.", lambda m: f"features.{cut}.block."),
        (r"backbone\.features\.1\.(\d+)\.", lambda m: f"features.{cut + int(m[1])}."),
        (
            r"backbone\.extra\.(\d+)\.(\d)\.(\d)",
            lambda m: f"head.extras.{m[1]}.{_EXTRA[int(m[2])]}.{_CONV_NORM[int(m[3])]}",
        ),
        (
            r"head\.(\w+)_head\.module_list\.(\d+)\.0\.(\d)",
            lambda m: f"{_PREDICTORS[m[1]]}.{m[2]}.depthwise.{_CONV_NORM[int(m[3])]}",
        ),
        (r"head\.(\w+)_head\.module_list\.(\d+)\.1", lambda m: f"{_PREDICTORS[m[1]]}.{m[2]}.project"),
    ]
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            if re.match(pattern, key):
                key = re.sub(pattern, replacement, key, count=1)
                break
        renamed[key] = value
    return from_torchvision(renamed)


def from_torchvision_mnasnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``mnasnet0_5`` .. ``mnasnet1_3`` (MnasNet-B1) under our names; what is not understood stays as it is.

    ``layers`` are a flat sequence: the stem, the first block's depthwise and projection, the stacks of blocks, and the
    last 1x1 convolution; each convolution is followed by its normalisation and, but for projections, an activation.
    """
    prefixes = {"classifier.1": "head.fc"}
    parts = {0: "stem", 3: "blocks.0.depthwise", 6: "blocks.0.project", 14: "last_conv"}
    for number, own in parts.items():
        prefixes |= _conv_norm("layers", number, f"backbone.{own}")
    blocks = _grouped(state, r"layers\.(\d+)\.(\d+)\.layers\.(.+)")
    for index, (stack, block) in enumerate(sorted(blocks, key=lambda place: (int(place[0]), int(place[1])))):
        for number, part in ((0, "expand"), (3, "depthwise"), (6, "project")):
            sequence = f"layers.{stack}.{block}.layers"
            prefixes |= _conv_norm(sequence, number, f"backbone.blocks.{index + 1}.{part}")
    return _renamed(state, prefixes)


def _conv_norm(sequence: str, number: int, own: str) -> dict[str, str]:
    return {f"{sequence}.{number}": f"{own}.conv", f"{sequence}.{number + 1}": f"{own}.norm"}


def select_classes(state: dict[str, Tensor], columns: Sequence[int], known: int) -> dict[str, Tensor]:
    """A detector's weights for some of the ``known`` columns of its class logits, in the order given."""
    chosen = dict(state)
    for key, value in state.items():
        if re.match(r"head\.class_predictors\.\d+\.project\.", key):
            by_anchor = value.view(-1, known, *value.shape[1:])
            chosen[key] = by_anchor[:, list(columns)].flatten(0, 1)
    return chosen


def from_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``mobilenetv1_*``, ``_v2_*``, ``_v3_*``, ``semnasnet_*`` (MnasNet-A1) and ``mnasnet_*`` under our names.

    What is not understood stays as it is.
    """
    prefixes = {"conv_stem": "backbone.stem.conv", "bn1": "backbone.stem.norm", "classifier": "head.fc"}
    # V2 and MnasNet end in conv_head + bn2, V1 in its last block, V3 in a block of one convolution; V3's conv_head
    # comes after the pooling
    if "bn2.weight" in state:
        prefixes |= {"conv_head": "backbone.last_conv.conv", "bn2": "backbone.last_conv.norm"}
    else:
        prefixes |= {"conv_head": "head.pre_logits"}
    blocks = _grouped(state, r"blocks\.(\d+)\.(\d+)\.(.+)")
    for index, (stage, block) in enumerate(sorted(blocks, key=lambda place: (int(place[0]), int(place[1])))):
        names = blocks[stage, block]
        theirs = f"blocks.{stage}.{block}"
        if "conv.weight" in names:
            prefixes |= {f"{theirs}.conv": "backbone.last_conv.conv", f"{theirs}.bn1": "backbone.last_conv.norm"}
            continue
        parts = _TIMM_BLOCK if "conv_pwl.weight" in names else _TIMM_FIRST_BLOCK
        prefixes |= {f"{theirs}.{part}": f"backbone.blocks.{index}.{own}" for part, own in parts.items()}
    return _renamed(state, prefixes)


def _grouped(keys: Iterable[str], pattern: str) -> dict[tuple[str, ...], list[str]]:
    """The pattern's last group, by its other groups."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in keys:
        if match := re.fullmatch(pattern, key):
            *place, rest = match.groups()
            groups[tuple(place)].append(rest)
    return groups


def _renamed(state: dict[str, Tensor], prefixes: dict[str, str]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, _, leaf = key.rpartition(".")
        own = prefixes.get(prefix)
        if own == "head.pre_logits" and value.ndim == 4:
            value = value.flatten(1)  # timm keeps the layer after the pooling as a 1x1 convolution
        renamed[f"{own}.{leaf}" if own else key] = value
    return renamed
