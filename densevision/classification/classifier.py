"""The classifier that the backbones were published with."""

from __future__ import annotations

from torch import Tensor, nn

from densevision.layers import activation


class ClassificationHead(nn.Module):
    """Global mean -> (linear layer and activation) -> dropout -> linear layer to the classes.

    forward: last_conv (B, in_channels, h, w) -> logits (B, num_classes).

    Args:
        pre_logits: width of the layer between pooling and classifier, h-swish and no normalisation (MobileNetV3
            paper, Tables 1 and 2); 0 leaves it out (MobileNetV2).
        dropout: 0.2 in TF-slim's and torchvision's V2 and V3.
    """

    def __init__(self, in_channels: int, num_classes: int, pre_logits: int = 0, dropout: float = 0.2) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.pre_logits = nn.Linear(in_channels, pre_logits) if pre_logits else nn.Identity()
        self.act = activation("hswish") if pre_logits else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(pre_logits or in_channels, num_classes)

    def forward(self, last_conv: Tensor) -> Tensor:
        return self.fc(self.dropout(self.act(self.pre_logits(self.pool(last_conv).flatten(1)))))
