"""The few building blocks that all networks here are made of; plain arguments in, plain modules out."""

from densevision.layers.blocks import InvertedResidual, Pointwise, SandGlass
from densevision.layers.conv import ConvNormAct, activation, make_divisible
from densevision.layers.init import truncated_normal_
from densevision.layers.norm import NormSpec
from densevision.layers.preprocess import Preprocess
from densevision.layers.squeeze_excite import SqueezeExcite

__all__ = [
    "ConvNormAct",
    "InvertedResidual",
    "NormSpec",
    "Pointwise",
    "Preprocess",
    "SandGlass",
    "SqueezeExcite",
    "activation",
    "make_divisible",
    "truncated_normal_",
]
