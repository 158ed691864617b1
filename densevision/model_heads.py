"""The heads by name, each built from its part of the configuration and the network it sits on."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from densevision.backbones import Architecture
from densevision.classification import ClassificationHead
from densevision.config.lookup import lookup
from densevision.config.schema import HeadConfig, ModelConfig, NormConfig
from densevision.detection import ssdlite
from densevision.detection.anchors import Shapes, shapes_from_config
from densevision.errors import UserError
from densevision.layers import NormSpec
from densevision.segmentation import heads


def _raspp(model: ModelConfig, architecture: Architecture, num_classes: int) -> tuple[nn.Module, tuple[str, ...]]:
    config = model.head
    top = architecture.feature_info[architecture.top]
    head = heads.RASPPHead(
        high_channels=top.channels,
        channels=config.channels,
        num_classes=num_classes,
        dropout=config.dropout,
        align_corners=config.align_corners,
        norm=norm_spec(config.norm, heads.NORM),
    )
    return head, (architecture.top,)


def _lraspp(model: ModelConfig, architecture: Architecture, num_classes: int) -> tuple[nn.Module, tuple[str, ...]]:
    config = model.head
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
        norm=norm_spec(config.norm, heads.NORM),
    )
    return head, (architecture.top, config.low_tap)


def _ssdlite(model: ModelConfig, architecture: Architecture, num_classes: int) -> tuple[nn.Module, tuple[str, ...]]:
    config = model.head
    features = ssdlite_features(config, architecture)
    head = ssdlite.SSDLiteHead(
        in_channels=[architecture.feature_info[name].channels for name in features],
        extras=config.extras,
        anchors=[len(shapes) for shapes in anchor_shapes(config)],
        num_classes=num_classes,
        width_mult=model.backbone.width_mult,
        prior=config.score == "sigmoid",
        norm=norm_spec(config.norm, ssdlite.NORM),
    )
    return head, features


def _classifier(model: ModelConfig, architecture: Architecture, num_classes: int) -> tuple[nn.Module, tuple[str, ...]]:
    # families without a last 1x1 pool their last block
    feature = "last_conv" if architecture.last_conv else "c5"
    head = ClassificationHead(
        in_channels=architecture.feature_info[feature].channels,
        num_classes=num_classes,
        pre_logits=architecture.pre_logits,
        dropout=model.head.dropout,
        act=architecture.last_conv.act if architecture.last_conv else "relu",
        bias=architecture.pre_logits_bias,
    )
    return head, (feature,)


# each takes the model's configuration, the network and the class count, and returns the head and the features it reads
HeadBuilder = Callable[[ModelConfig, Architecture, int], tuple[nn.Module, tuple[str, ...]]]
SEGMENTATION_HEADS: dict[str, HeadBuilder] = {"raspp": _raspp, "lraspp": _lraspp}
DETECTION_HEADS: dict[str, HeadBuilder] = {"ssdlite": _ssdlite}
CLASSIFICATION_HEADS: dict[str, HeadBuilder] = {"classifier": _classifier}
HEADS = {**SEGMENTATION_HEADS, **DETECTION_HEADS, **CLASSIFICATION_HEADS}
_TASK_HEADS = {
    "segmentation": SEGMENTATION_HEADS,
    "detection": DETECTION_HEADS,
    "classification": CLASSIFICATION_HEADS,
}


def ssdlite_features(head: HeadConfig, architecture: Architecture) -> tuple[str, ...]:
    """The backbone's features that an SSDLite head reads, fine to coarse.

    Raises:
        UserError: output stride 8, at which the maps are not those that the head and its anchors are meant for.
    """
    if architecture.feature_info["c5"].stride < 16:
        raise UserError(
            "SSDLite reads maps of stride 16 and coarser, so its output stride is 16 or 32, not 8; for small objects "
            "set model.head.first_map=c3_expansion",
            key="model.backbone.output_stride",
        )
    # V1 has no last 1x1; its last block is what comes before the pooling
    published = ("c4_expansion", "last_conv" if architecture.last_conv else "c5")
    return published if head.first_map in published else (head.first_map, *published)


def anchor_shapes(head: HeadConfig) -> Shapes:
    """The anchors of each of the head's maps: (width, height) in fractions of the picture's shorter side.

    Raises:
        UserError: an unknown name, or lists that do not fit the maps.
    """
    of_backbone = 2 if head.first_map == "c4_expansion" else 3
    return shapes_from_config(head.anchors, maps=of_backbone + len(head.extras))


def check_head(task: str, model: ModelConfig) -> None:
    """Refuse a head of another task.

    Raises:
        UserError: names the heads that there are.
    """
    fitting = _TASK_HEADS.get(task, HEADS)
    if model.head.name in HEADS and model.head.name not in fitting:
        raise UserError(f"{model.head.name} is no head for {task}; known: {', '.join(fitting)}", key="model.head.name")


def norm_spec(config: NormConfig, published: NormSpec) -> NormSpec:
    return NormSpec(
        momentum=published.momentum if config.momentum is None else config.momentum,
        eps=published.eps if config.eps is None else config.eps,
    )


def published_norm(head: str) -> NormSpec:
    """Momentum and epsilon of a head's batch norm in the published code."""
    return ssdlite.NORM if head == "ssdlite" else heads.NORM
