"""Backbones: a published table each, resolved to one :class:`Architecture`, built by one :class:`Backbone`.

A new family is one file with its table and a function like :func:`mobilenet_v2`, and one line in ``BACKBONES``.
"""

from collections.abc import Callable
from functools import partial

from densevision.backbones.arch_file import (
    architecture_from_dict,
    architecture_to_dict,
    layer_to_dict,
    read_architecture,
    write_architecture,
)
from densevision.backbones.base import (
    Architecture,
    Backbone,
    Block,
    BlockSpec,
    ConvSpec,
    FeatureInfo,
    PointwiseSpec,
    SandGlassSpec,
)
from densevision.backbones.fbnetv2 import VARIANTS, fbnetv2
from densevision.backbones.mnasnet import mnasnet_a1, mnasnet_b1, mnasnet_small
from densevision.backbones.mobilenet_v1 import mobilenet_v1
from densevision.backbones.mobilenet_v2 import mobilenet_v2
from densevision.backbones.mobilenet_v3 import (
    mobilenet_v3_large,
    mobilenet_v3_large_minimalistic,
    mobilenet_v3_small,
    mobilenet_v3_small_minimalistic,
)
from densevision.backbones.mobilenext import mobilenext
from densevision.backbones.proxylessnas import proxylessnas_mobile

# each takes width_mult, output_stride, reduced_tail, dilation_rule and scale_last_conv, all with defaults
BACKBONES: dict[str, Callable[..., Architecture]] = {
    **{f"fbnetv2_{variant}": partial(fbnetv2, variant) for variant in VARIANTS},
    "mnasnet_a1": mnasnet_a1,
    "mnasnet_b1": mnasnet_b1,
    "mnasnet_small": mnasnet_small,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_large_minimalistic": mobilenet_v3_large_minimalistic,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_small_minimalistic": mobilenet_v3_small_minimalistic,
    "mobilenext": mobilenext,
    "proxylessnas_mobile": proxylessnas_mobile,
}

__all__ = [
    "BACKBONES",
    "Architecture",
    "Backbone",
    "Block",
    "BlockSpec",
    "ConvSpec",
    "FeatureInfo",
    "PointwiseSpec",
    "SandGlassSpec",
    "architecture_from_dict",
    "architecture_to_dict",
    "layer_to_dict",
    "read_architecture",
    "write_architecture",
]
