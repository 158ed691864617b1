"""Classification: the head that the backbones were published with."""

from densevision.classification.classifier import ClassificationHead

__all__ = ["ClassificationHead"]
