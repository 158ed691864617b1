"""Published weights: where they come from, what follows from that, and how they are put into a network."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from densevision.backbones.names import (
    from_timm,
    from_torchvision,
    from_torchvision_mnasnet,
    from_torchvision_ssdlite,
    select_classes,
)
from densevision.checkpoint import read_checkpoint
from densevision.config.lookup import lookup
from densevision.errors import UserError
from densevision.paths import is_file

log = logging.getLogger("densevision")

# (family, width) -> timm's name of the network with published weights
TIMM_NAMES = {
    ("mnasnet_a1", 0.75): "semnasnet_075",
    ("mnasnet_a1", 1.0): "semnasnet_100",
    ("mnasnet_b1", 1.0): "mnasnet_100",
    ("mnasnet_small", 1.0): "mnasnet_small",
    ("mobilenet_v1", 1.0): "mobilenetv1_100",
    ("mobilenet_v1", 1.25): "mobilenetv1_125",
    ("mobilenet_v2", 0.5): "mobilenetv2_050",
    ("mobilenet_v2", 1.0): "mobilenetv2_100",
    ("mobilenet_v2", 1.4): "mobilenetv2_140",
    ("mobilenet_v3_large", 1.0): "mobilenetv3_large_100",
    ("mobilenet_v3_large_minimalistic", 1.0): "tf_mobilenetv3_large_minimal_100",
    ("mobilenet_v3_small", 0.75): "mobilenetv3_small_075",
    ("mobilenet_v3_small", 1.0): "mobilenetv3_small_100",
    ("mobilenet_v3_small_minimalistic", 1.0): "tf_mobilenetv3_small_minimal_100",
}
# likewise torchvision's
TORCHVISION_BACKBONES = {
    ("mnasnet_b1", 0.5): "mnasnet0_5",
    ("mnasnet_b1", 0.75): "mnasnet0_75",
    ("mnasnet_b1", 1.0): "mnasnet1_0",
    ("mnasnet_b1", 1.3): "mnasnet1_3",
    ("mobilenet_v2", 1.0): "mobilenet_v2",
    ("mobilenet_v3_large", 1.0): "mobilenet_v3_large",
    ("mobilenet_v3_small", 1.0): "mobilenet_v3_small",
}
# head -> torchvision's name of the whole network with published weights, all on mobilenet_v3_large
_TORCHVISION_NAMES = {"lraspp": "lraspp_mobilenet_v3_large", "ssdlite": "ssdlite320_mobilenet_v3_large"}
_SHOWN = 6  # keys named in a message


@dataclass(frozen=True)
class Pretrained:
    """Weights under our names, and what they were trained with.

    origin: the file or hub, for messages. source: ``torchvision``, ``timm`` or ``densevision``.
    state: ``backbone.*`` and ``head.*``. eps: of the backbone's normalisation, None if the source does not say.
    preprocess: what the pixels went through, likewise. dilation_rule: ``old`` or ``new``, likewise.
    """

    origin: str
    source: str
    state: dict[str, Tensor]
    eps: float | None
    preprocess: str | None
    dilation_rule: str | None = None

    def part(self, name: str) -> dict[str, Tensor]:
        """The entries below ``name`` (``backbone``), without that prefix."""
        return {key.removeprefix(f"{name}."): value for key, value in self.state.items() if key.startswith(f"{name}.")}


def read_pretrained(where: str, family: str, width_mult: float = 1.0, head: str | None = None) -> Pretrained:
    """Weights from a file, or from a hub if ``where`` is ``torchvision`` or ``timm``; nothing else is downloaded.

    Whose names a file has is seen from its keys. Epsilon follows: torchvision's V2 and MnasNet were trained with 1e-5,
    its V3 with 1e-3, timm's networks with 1e-5, its ``tf_*`` with 1e-3. Of these the minimalistic V3 are known by
    their family, for the others set ``norm.eps`` and ``model.preprocess=half``; all of them pad as TensorFlow, which
    is the same on odd sizes alone. So does the dilation rule: torchvision's segmentation networks were trained with
    its own, ``new``.

    Args:
        family, width_mult: of the network, to choose what to download.
        head: download the whole network with this head instead of a classifier.

    Raises:
        UserError: no such file, a damaged one, unknown names, or nothing published for this network.
    """
    if where in ("torchvision", "timm"):
        stored: dict[str, Any] = _download(where, family, width_mult, head)
        origin = f"{where}'s weights"
    else:
        origin = where
        path = Path(where).expanduser()
        if not is_file(path):
            hubs = "torchvision or timm" if head is None else "torchvision"
            raise UserError(f"no checkpoint at {where}; give the path of a file, or {hubs} to download weights")
        stored = read_checkpoint(path)
    meta = stored.get("densevision")
    for key in ("state_dict", "model"):
        if isinstance(stored.get(key), dict):
            stored = stored[key]
    state = {key: value for key, value in stored.items() if isinstance(value, Tensor)}
    if any(key.startswith("model.backbone.") for key in state):
        trained = meta["config"]["model"] if isinstance(meta, dict) else {}
        backbone = trained.get("backbone", {})
        own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
        return Pretrained(
            origin,
            "densevision",
            own,
            eps=backbone.get("norm", {}).get("eps"),
            preprocess=trained.get("preprocess"),
            dilation_rule=backbone.get("dilation_rule"),
        )
    if "backbone.features.0.0.0.weight" in state:
        return Pretrained(origin, "torchvision", from_torchvision_ssdlite(state), 1e-3, "half")
    if "conv_stem.weight" in state:
        tensorflow = family.endswith("_minimalistic")  # timm has these from TF-slim only
        if tensorflow:
            log.warning(
                "%s was trained with TensorFlow's padding: its features are the same on odd sizes alone", origin
            )
        # timm's V1, the network without a last 1x1, was trained on [-1, 1], as all of TF-slim's
        preprocess = "half" if tensorflow or "conv_head.weight" not in state else "imagenet"
        return Pretrained(origin, "timm", from_timm(state), 1e-3 if tensorflow else 1e-5, preprocess)
    if "layers.8.0.layers.0.weight" in state:
        return Pretrained(origin, "torchvision", from_torchvision_mnasnet(state), 1e-5, "imagenet")
    if any(re.match(r"(features|backbone)\.0\.0\.weight", key) for key in state):
        eps = 1e-5 if any(".conv." in key for key in state) else 1e-3
        rule = "new" if "backbone.0.0.weight" in state else None  # a segmentation network's, which is dilated
        return Pretrained(origin, "torchvision", from_torchvision(state), eps, "imagenet", rule)
    names = ", ".join(list(state)[:3]) or "no tensors"
    raise UserError(f"{origin} holds {names}, ...: neither torchvision's names of a MobileNet, nor timm's, nor ours")


def load_backbone(backbone: nn.Module, weights: Pretrained, first_reduced: int | None = None) -> None:
    """Put weights into a backbone, all or an error.

    Args:
        backbone: a :class:`densevision.backbones.Backbone`.
        first_reduced: index of the first block that a reduced tail changes, None without. Then a file of the full
            tail is accepted: all tensors are taken, in network order, up to the first that does not fit, which must
            lie in the tail; a warning says how many are left at random.

    Raises:
        UserError: keys are missing or too many, or shapes differ; names them.
    """
    state = weights.part("backbone")
    wanted = backbone.state_dict()
    misfits = _misfits(wanted, state)
    if first_reduced is not None and misfits and all(_is_in_tail(key, first_reduced) for key in misfits):
        keys = list(wanted)
        cut = keys.index(next(iter(misfits)))
        backbone.load_state_dict({key: state[key] for key in keys[:cut] if key in state}, strict=False)
        left = [name for name, _ in backbone.named_parameters() if keys.index(name) >= cut]
        total = sum(1 for _ in backbone.parameters())
        log.warning(
            "%s has the published tail, the network a narrower: %d of %d tensors loaded, %d from %s on start at random",
            weights.origin,
            total - len(left),
            total,
            len(left),
            left[0],
        )
        return
    misfits |= _surplus(wanted, state)
    _load_all(backbone, state, misfits, weights.origin)


def load_whole(model: nn.Module, weights: Pretrained) -> None:
    """Put weights into backbone and head, all or an error.

    Raises:
        UserError: keys are missing or too many, or shapes differ; names them.
    """
    wanted = model.state_dict()
    surplus = {key: "not in the network" for key in weights.state if key not in wanted}
    _load_all(model, weights.state, _misfits(wanted, weights.state) | surplus, weights.origin)


def for_classes(weights: Pretrained, num_classes: int, class_ids: Sequence[int] | None) -> Pretrained:
    """A whole detector's published weights for some of its classes; all others are returned as they are.

    Args:
        num_classes: of the network that is to be filled.
        class_ids: the published id of each of these, which is its column; None where ids are not known.
    """
    classes, boxes = (weights.state.get(f"head.{part}_predictors.0.project.bias") for part in ("class", "box"))
    if classes is None or boxes is None or class_ids is None or weights.source == "densevision":
        return weights
    known = len(classes) // (len(boxes) // 4)
    if known == num_classes + 1 or max(class_ids) >= known:
        return weights
    return replace(weights, state=select_classes(weights.state, [0, *class_ids], known))


def _load_all(module: nn.Module, state: dict[str, Tensor], misfits: dict[str, str], origin: str) -> None:
    if misfits:
        named = "; ".join(f"{key}: {what}" for key, what in list(misfits.items())[:_SHOWN])
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise UserError(f"{origin} does not fit the network ({named}{more}); family, width and tail must be the same")
    wanted = module.state_dict()
    module.load_state_dict({key: value for key, value in state.items() if key in wanted}, strict=False)


def _misfits(wanted: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, str]:
    """What the network needs and the file lacks or has in another shape, in network order."""
    misfits: dict[str, str] = {}
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue  # a counter that nothing here reads; old files lack it
        if key not in state:
            misfits[key] = "not in the file"
        elif state[key].shape != value.shape:
            misfits[key] = f"{tuple(state[key].shape)} in the file, {tuple(value.shape)} in the network"
    return misfits


def _surplus(wanted: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, str]:
    """What the file has for a layer that the network has otherwise (say squeeze-and-excite); deeper layers may be."""
    layers = {_layer(key) for key in wanted if re.search(r"^stem\.|\.project\.|\.reduce\.", key)}
    return {key: "not in the network" for key in state if key not in wanted and _layer(key) in layers}


def _layer(key: str) -> str:
    return ".".join(key.split(".")[: 2 if key.startswith("blocks.") else 1])


def _is_in_tail(key: str, first: int) -> bool:
    match = re.match(r"blocks\.(\d+)\.", key)
    return int(match[1]) >= first if match else key.startswith("last_conv.")


def _download(where: str, family: str, width_mult: float, head: str | None) -> dict[str, Any]:
    try:
        if where == "timm" and head is None:
            return _download_timm(family, width_mult)
        from torchvision.models import get_model_weights

        name = TORCHVISION_BACKBONES.get((family, width_mult))
        if head is not None:
            name = _TORCHVISION_NAMES.get(head) if name == "mobilenet_v3_large" else None
        if where != "torchvision" or name is None:
            network = f"{family}, width {width_mult:g}" + (f", with {head}" if head else "")
            raise UserError(f"{where} has no published weights of this network ({network})")
        return dict(get_model_weights(name).DEFAULT.get_state_dict(progress=False))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{where}'s weights could not be downloaded ({error}); give the path of a file") from error


def _download_timm(family: str, width_mult: float) -> dict[str, Any]:
    try:
        import timm
    except ImportError as error:
        raise UserError("timm is not installed; pip install timm, or give the path of a file") from error
    known = {f"{name} at width {width:g}": theirs for (name, width), theirs in TIMM_NAMES.items()}
    name = lookup("network with weights in timm", f"{family} at width {width_mult:g}", known)
    return dict(timm.create_model(name, pretrained=True).state_dict())
