"""Backbones: a published table each, resolved to one :class:`Architecture`, built by one :class:`Backbone`.

A new family is one file with its table and a function like :func:`mobilenet_v2`, and one line in ``BACKBONES``.
"""

from collections.abc import Callable

from densevision.backbones.base import Architecture, Backbone, BlockSpec, ConvSpec, FeatureInfo
from densevision.backbones.mnasnet import mnasnet_a1
from densevision.backbones.mobilenet_v1 import mobilenet_v1
from densevision.backbones.mobilenet_v2 import mobilenet_v2
from densevision.backbones.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small

# each takes width_mult, output_stride, reduced_tail, dilation_rule and scale_last_conv, all with defaults
BACKBONES: dict[str, Callable[..., Architecture]] = {
    "mnasnet_a1": mnasnet_a1,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
}

__all__ = ["BACKBONES", "Architecture", "Backbone", "BlockSpec", "ConvSpec", "FeatureInfo"]
