"""What a file of lower precision costs and gains."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SHARE, LARGEST_FILE = 0.95, 0.3  # of the multiply-adds in int8, and of the float file's size
# task -> the figure of an evaluation that it is judged by, and its name
FIGURES = {"segmentation": ("miou", "mIoU"), "detection": ("map", "AP"), "classification": ("top1", "top-1")}


@dataclass(frozen=True)
class PrecisionReport:
    """A file in int8 or fp16 beside what it was made of.

    precision: ``int8`` or ``fp16``. trained: whether the network was trained for it. metric: what before and after
    are, fractions: of the checkpoint in PyTorch and of the file in its runtime, on the ``pictures`` of ``split``.
    size_ratio: of the file to the same network's in float32. int8_share: of the multiply-adds, as the runtime does
    them; None of fp16, which is stored and not computed in.
    """

    precision: str
    trained: bool
    metric: str
    before: float
    after: float
    split: str
    pictures: int
    size_ratio: float
    int8_share: float | None

    def lines(self) -> list[str]:
        """In words, a line each."""
        made = "trained for it" if self.trained else "after training"
        lines = [
            f"{self.precision}, {made}: {self.metric} {100 * self.before:.2f} of the checkpoint in PyTorch, "
            f"{100 * self.after:.2f} of the file in its runtime ({self.pictures} pictures of {self.split})",
            f"the file is {self.size_ratio:.3f} of the float32 file's size",
        ]
        if self.int8_share is not None:
            lines.append(f"{self.int8_share:.1%} of the multiply-adds are computed in int8")
        return lines

    def warnings(self) -> list[str]:
        """Where int8 is less than it should be."""
        found = []
        if self.int8_share is not None and self.int8_share < LEAST_SHARE:
            found.append(f"less than {LEAST_SHARE:.0%} of the multiply-adds are in int8")
        if self.int8_share is not None and self.size_ratio > LARGEST_FILE:
            found.append(f"the file is larger than {LARGEST_FILE} of the float32 file: what is not weights weighs much")
        return found
