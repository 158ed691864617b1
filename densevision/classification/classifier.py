"""The classifier that the backbones were published with, and the whole network."""

from __future__ import annotations

from torch import Tensor, nn

from densevision.backbones import Backbone
from densevision.layers import activation


class ClassificationHead(nn.Module):
    """Global mean -> (linear layer and activation) -> dropout -> linear layer to the classes.

    forward: deepest map (B, in_channels, h, w) -> logits (B, num_classes).

    Args:
        pre_logits: width of the layer between pooling and classifier, without normalisation (MobileNetV3 paper,
            Tables 1 and 2); 0 leaves it out (MobileNetV2).
        dropout: 0.2 in TF-slim's and torchvision's V2 and V3.
        act: behind that layer; of no meaning without it.
        bias: whether that layer has one (FBNetV2's has none).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        pre_logits: int = 0,
        dropout: float = 0.2,
        act: str = "hswish",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.pre_logits = nn.Linear(in_channels, pre_logits, bias=bias) if pre_logits else nn.Identity()
        self.act = activation(act) if pre_logits else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(pre_logits or in_channels, num_classes)

    def forward(self, deepest: Tensor) -> Tensor:
        return self.fc(self.dropout(self.act(self.pre_logits(self.pool(deepest).flatten(1)))))


class Classifier(nn.Module):
    """A backbone and its classifier, with the normalisation of the pixels in front.

    forward: images (B, 3, H, W) uint8 or float in 0..255 -> logits (B, K), alike in training and evaluation.

    Args:
        preprocess: pixels -> normalised floats.
        backbone: normalised floats -> {feature: map}.
        head: the one map that it takes -> logits.
        feature: that map's name.
    """

    def __init__(self, preprocess: nn.Module, backbone: Backbone, head: ClassificationHead, feature: str) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.head = head
        self.feature = feature

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(self.preprocess(images))[self.feature])
