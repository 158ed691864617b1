"""Classification: the head that the backbones were published with."""

from densevision.classification.classifier import ClassificationHead, Classifier

__all__ = ["ClassificationHead", "Classifier"]
