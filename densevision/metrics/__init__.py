"""What judges predictions: numbers equal to those of the official scripts."""

from densevision.metrics.segmentation import ConfusionMatrix, SegmentationScores

__all__ = ["ConfusionMatrix", "SegmentationScores"]
