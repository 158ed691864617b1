"""Pictures for people."""

from densevision.visualize.charts import class_bars, confusion_picture
from densevision.visualize.pictures import (
    DRAWN_SCORE,
    box_comparison,
    color_map,
    comparison,
    draw_boxes,
    draw_mask,
    draw_outlines,
    grid,
    legend,
    overlay,
)

__all__ = [
    "DRAWN_SCORE",
    "box_comparison",
    "class_bars",
    "color_map",
    "comparison",
    "confusion_picture",
    "draw_boxes",
    "draw_mask",
    "draw_outlines",
    "grid",
    "legend",
    "overlay",
]
