"""What judges predictions: numbers equal to those of the official scripts."""

from densevision.metrics.detection import DetectionResults, DetectionScorer, DetectionScores
from densevision.metrics.segmentation import ConfusionMatrix, SegmentationScores

__all__ = ["ConfusionMatrix", "DetectionResults", "DetectionScorer", "DetectionScores", "SegmentationScores"]
