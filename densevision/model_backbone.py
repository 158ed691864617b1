"""From the configuration of a backbone to its resolved table."""

from __future__ import annotations

from copy import deepcopy

from densevision.backbones import BACKBONES, Architecture, architecture_from_dict, read_architecture
from densevision.backbones.mobilenet_v3 import move_hswish
from densevision.config.lookup import lookup
from densevision.config.schema import BackboneConfig
from densevision.errors import UserError


def build_architecture(backbone: BackboneConfig) -> Architecture:
    """The resolved table of a backbone.

    Raises:
        UserError: no such backbone, or one without the residuals or activations that a key is about; a mistake in the
            file of a table.
    """
    if backbone.arch is not None:
        return _own_architecture(backbone)
    if not backbone.name:
        raise UserError(
            "give the name of a backbone, or the file of a table in model.backbone.arch", key="model.backbone.name"
        )
    family = lookup("backbone", backbone.name, BACKBONES, key="model.backbone.name")
    cut = "segmentation" if backbone.reduced_tail is True else backbone.reduced_tail or None
    special = {}
    if backbone.identity_tensor_multiplier != 1:
        if backbone.name != "mobilenext":
            raise UserError(
                f"{backbone.name} adds whole tensors; only mobilenext has partial residuals",
                key="model.backbone.identity_tensor_multiplier",
            )
        special["identity_tensor_multiplier"] = backbone.identity_tensor_multiplier
    architecture = family(
        width_mult=backbone.width_mult,
        output_stride=backbone.output_stride,
        reduced_tail=cut,
        dilation_rule=backbone.dilation_rule or "old",
        scale_last_conv=backbone.scale_last_conv,
        **special,
    )
    if backbone.hswish_from is None:
        return architecture
    if backbone.name not in ("mobilenet_v3_large", "mobilenet_v3_small"):
        raise UserError(f"{backbone.name} has no h-swish to move", key="model.backbone.hswish_from")
    return move_hswish(architecture, backbone.hswish_from)


def _own_architecture(backbone: BackboneConfig) -> Architecture:
    """The table that ``model.backbone.arch`` names, or in a stored configuration is."""
    try:
        if isinstance(backbone.arch, dict):
            architecture = architecture_from_dict(backbone.arch, "the table")
        else:
            architecture = read_architecture(str(backbone.arch))
    except UserError as error:
        raise UserError(str(error), key="model.backbone.arch") from error
    stride = output_stride(architecture)
    if backbone.output_stride not in (BackboneConfig.output_stride, stride):
        raise UserError(
            f"the table of model.backbone.arch has output stride {stride} and is built as it stands; leave this out",
            key="model.backbone.output_stride",
        )
    return architecture


def output_stride(architecture: Architecture) -> int:
    """Pixels a cell of the deepest map."""
    return architecture.feature_info["c5"].stride


def first_reduced_block(backbone: BackboneConfig) -> int | None:
    """Index of the first block that differs from the published network, its count if only the last 1x1 does."""
    if backbone.arch is not None:
        return None
    full = deepcopy(backbone)
    full.reduced_tail = full.scale_last_conv = False
    published, built = build_architecture(full), build_architecture(backbone)
    if published == built:
        return None
    pairs = zip(published.blocks, built.blocks, strict=True)
    return next((i for i, (whole, cut) in enumerate(pairs) if whole != cut), len(built.blocks))
