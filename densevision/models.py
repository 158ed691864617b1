"""Where backbone tables, heads and configurations meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

from torch import nn

from densevision.backbones import BACKBONES, Architecture, Backbone
from densevision.backbones.pretrained import Pretrained, load_backbone, load_whole, read_pretrained
from densevision.config import load_config
from densevision.config.lookup import lookup
from densevision.config.schema import BackboneConfig, Config, HeadConfig, ModelConfig, NormConfig
from densevision.errors import UserError
from densevision.layers import NormSpec, Preprocess
from densevision.segmentation import heads
from densevision.segmentation.segmenter import Segmenter

# formats whose classes do not depend on the files
FIXED_NUM_CLASSES = {"cityscapes": 19, "voc": 21}


def _raspp(config: HeadConfig, architecture: Architecture, num_classes: int) -> tuple[heads.RASPPHead, tuple[str, ...]]:
    top = architecture.feature_info[architecture.top]
    head = heads.RASPPHead(
        high_channels=top.channels,
        channels=config.channels,
        num_classes=num_classes,
        dropout=config.dropout,
        align_corners=config.align_corners,
        norm=_norm(config.norm, heads.NORM),
    )
    return head, (architecture.top,)


def _lraspp(
    config: HeadConfig, architecture: Architecture, num_classes: int
) -> tuple[heads.LRASPPHead, tuple[str, ...]]:
    top = architecture.feature_info[architecture.top]
    low = lookup("feature", config.low_tap, architecture.feature_info, key="model.head.low_tap")
    kernel = None
    if config.pool_window is not None:
        # 769 pixels are 49 cells of stride 16: sizes of 16 k + 1 cover k + 1 cells
        height, width = ((side - 1) // top.stride + 1 for side in config.pool_window)
        kernel = (height, width)
    head = heads.LRASPPHead(
        low_channels=low.channels,
        high_channels=top.channels,
        channels=config.channels,
        num_classes=num_classes,
        pool_kernel=kernel,
        pool_stride=(config.pool_stride[0], config.pool_stride[1]),
        gate=config.gate,
        gate_bias=config.gate_bias,
        align_corners=config.align_corners,
        norm=_norm(config.norm, heads.NORM),
    )
    return head, (architecture.top, config.low_tap)


# each takes the head's configuration, the network and the class count, and returns the head and the features it reads
HEADS: dict[str, Callable[..., tuple[heads.RASPPHead | heads.LRASPPHead, tuple[str, ...]]]] = {
    "raspp": _raspp,
    "lraspp": _lraspp,
}


def create_model(path: str | Path, overrides: Sequence[str] = (), num_classes: int | None = None) -> nn.Module:
    """A configuration's model, with its pretrained weights if it names any.

    Args:
        path: a YAML file, or one of the project's configurations by name.
        overrides: ``["model.backbone.width_mult=0.75"]``.
        num_classes: None for the data format's own, where that is fixed (Cityscapes 19, VOC 21).

    Returns:
        as :func:`build_model`.

    Raises:
        UserError: a mistake in the configuration; names the file or override and what is right.
    """
    loaded = load_config(path, overrides)
    with loaded.blaming_origin():
        return build_model(loaded.config.model, num_classes or default_num_classes(loaded.config))


def build_model(model: ModelConfig, num_classes: int, load_weights: bool = True) -> Segmenter:
    """The network that ``model`` describes, on the CPU, in training mode.

    Args:
        num_classes: K of the logits.
        load_weights: False leaves the ``pretrained`` keys alone, for a model whose weights come from its own
            checkpoint; ``model`` must then be :func:`resolved`, as epsilon and preprocessing follow those keys.

    Returns:
        a :class:`Segmenter`: images (B, 3, H, W) uint8 or float 0..255 -> logits (B, num_classes, h, w).

    Raises:
        UserError: an unknown name, or weights that do not fit; carries the configuration key.
    """
    weights = _read_weights(model) if load_weights else None
    model = _resolved(model, weights)
    architecture = build_architecture(model.backbone)
    head, features = lookup("head", model.head.name, HEADS, key="model.head.name")(
        model.head, architecture, num_classes
    )
    backbone = Backbone(architecture, features, norm=_norm(model.backbone.norm, architecture.norm))
    assert model.preprocess is not None
    segmenter = Segmenter(Preprocess(model.preprocess), backbone, head, features)
    if weights:
        _load(segmenter, model, weights)
    return segmenter


def build_architecture(backbone: BackboneConfig) -> Architecture:
    """The resolved table of a backbone.

    Raises:
        UserError: no such backbone.
    """
    family = lookup("backbone", backbone.name, BACKBONES, key="model.backbone.name")
    cut = "segmentation" if backbone.reduced_tail is True else backbone.reduced_tail or None
    return family(
        width_mult=backbone.width_mult,
        output_stride=backbone.output_stride,
        reduced_tail=cut,
        dilation_rule=backbone.dilation_rule,
        scale_last_conv=backbone.scale_last_conv,
    )


def resolved(model: ModelConfig) -> ModelConfig:
    """A copy in which nothing is left to be decided: preprocessing, momentum and epsilon have their values.

    What a checkpoint should hold: it then means the same without the pretrained file.
    """
    return _resolved(model, _read_weights(model))


def default_num_classes(config: Config) -> int:
    """The class count of a data format that always has the same classes.

    Raises:
        UserError: the classes depend on the files, so they must be said or come from the data.
    """
    if config.data.name in FIXED_NUM_CLASSES:
        return FIXED_NUM_CLASSES[config.data.name]
    raise UserError(f"the classes of '{config.data.name}' depend on its files; say num_classes", key="data.name")


def check_batch_norm(model: ModelConfig, crop_size: Sequence[int] | None, batch_size: int) -> None:
    """Refuse training batches in which a normalised channel has a single value, and so no variance.

    Args:
        crop_size: (height, width) of the training pictures; None where it is the pictures' own.
        batch_size: pictures a process and step.

    Raises:
        UserError: one picture with R-ASPP, whose pooled branch is a 1x1 map, or one picture no larger than a cell.
    """
    if batch_size > 1:
        return
    if model.head.name == "raspp":
        raise UserError(
            "R-ASPP normalises a pooled 1x1 map over the batch, so it trains on at least 2 pictures a process; raise "
            "data.batch_size, or use model.head.name=lraspp, which trains on 1",
            key="data.batch_size",
        )
    stride = model.backbone.output_stride
    if crop_size is not None and max(crop_size) <= stride:
        raise UserError(
            f"a crop of {crop_size[0]}x{crop_size[1]} is one cell at output stride {stride}, which batch "
            "normalisation cannot train on alone; raise data.crop_size or data.batch_size",
            key="data.crop_size",
        )


def _read_weights(model: ModelConfig) -> Pretrained | None:
    for key, where, whole in (
        ("model.pretrained", model.pretrained, True),
        ("model.backbone.pretrained", model.backbone.pretrained, False),
    ):
        if where is None:
            continue
        lookup("backbone", model.backbone.name, BACKBONES, key="model.backbone.name")
        try:
            return read_pretrained(where, model.backbone.name, model.backbone.width_mult, whole)
        except UserError as error:
            raise UserError(str(error), key=key) from error
    return None


def _load(segmenter: Segmenter, model: ModelConfig, weights: Pretrained) -> None:
    key = "model.pretrained" if model.pretrained is not None else "model.backbone.pretrained"
    try:
        if model.pretrained is not None:
            load_whole(segmenter, weights)
        else:
            load_backbone(segmenter.backbone, weights, _first_reduced_block(model.backbone))
    except UserError as error:
        raise UserError(str(error), key=key) from error


def _first_reduced_block(backbone: BackboneConfig) -> int | None:
    """Index of the first block that differs from the published network, its count if only the last 1x1 does."""
    full = deepcopy(backbone)
    full.reduced_tail = full.scale_last_conv = False
    published, built = build_architecture(full), build_architecture(backbone)
    if published == built:
        return None
    pairs = zip(published.blocks, built.blocks, strict=True)
    return next((i for i, (whole, cut) in enumerate(pairs) if whole != cut), len(built.blocks))


def _resolved(model: ModelConfig, weights: Pretrained | None) -> ModelConfig:
    model = deepcopy(model)
    published = build_architecture(model.backbone).norm
    norm = model.backbone.norm
    norm.momentum = published.momentum if norm.momentum is None else norm.momentum
    if norm.eps is None:
        norm.eps = weights.eps if weights and weights.eps is not None else published.eps
    norm = model.head.norm
    norm.momentum = heads.NORM.momentum if norm.momentum is None else norm.momentum
    norm.eps = heads.NORM.eps if norm.eps is None else norm.eps
    if model.preprocess is None:
        model.preprocess = (weights and weights.preprocess) or "half"
    return model


def _norm(config: NormConfig, published: NormSpec) -> NormSpec:
    return NormSpec(
        momentum=published.momentum if config.momentum is None else config.momentum,
        eps=published.eps if config.eps is None else config.eps,
    )
