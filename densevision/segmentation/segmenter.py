"""Pixels in, class scores out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from densevision.backbones import Backbone
from densevision.segmentation.heads import LRASPPHead, RASPPHead


class Segmenter(nn.Module):
    """A backbone and a segmentation head, with the normalisation of the pixels in front.

    forward: images (B, 3, H, W) uint8 or float in 0..255 -> logits (B, K, h, w), at the head's stride (1/8 for
    LR-ASPP, 1/output_stride for R-ASPP), alike in training and evaluation. Resizing them to the picture, with the
    head's ``align_corners``, is the loss's and the postprocessing's part.

    Args:
        preprocess: pixels -> normalised floats.
        backbone: normalised floats -> {feature: map}.
        head: maps -> logits.
        features: the backbone's features that the head takes, in the order of its arguments.
    """

    def __init__(
        self, preprocess: nn.Module, backbone: Backbone, head: RASPPHead | LRASPPHead, features: Sequence[str]
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.head = head
        self.features = tuple(features)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone(self.preprocess(images))
        return self.head(*(maps[name] for name in self.features))
