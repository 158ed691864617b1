"""What an exported file computes: pixels in, the network's outputs or their meaning out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from densevision.classification import Classifier
from densevision.detection.postprocess import CANDIDATES, Postprocess
from densevision.detection.ssdlite import SSDLite
from densevision.segmentation.postprocess import class_map
from densevision.segmentation.segmenter import Segmenter

# head -> names of the network's outputs, and of what is made of them
OUTPUTS: dict[type[nn.Module], tuple[tuple[str, ...], tuple[str, ...]]] = {
    Segmenter: (("logits",), ("classes",)),
    SSDLite: (("class_logits", "box_deltas"), ("boxes", "scores", "labels", "count")),
    Classifier: (("logits",), ("probabilities",)),
}


class Deployed(nn.Module):
    """A network behind one signature for all tasks and formats.

    forward: images (B, 3, H, W) uint8 RGB -> a tuple of tensors, named by ``outputs``. Raw they are the network's own.
    Finished they are, of a segmenter, ``classes`` (B, H, W) uint8 class indices at the picture's size; of a detector
    ``boxes`` (B, D, 4) xyxy pixels of the (H, W) picture, ``scores`` (B, D), ``labels`` (B, D) int64 and ``count``
    (B,) int64, as :meth:`densevision.detection.postprocess.Postprocess.fixed_shape` gives them; of a classifier
    ``probabilities`` (B, K).

    Args:
        model: a :class:`Segmenter`, :class:`SSDLite` or :class:`Classifier`.
        image_size: (H, W) that a detector's anchors are for.
        suppression: what a detector's outputs are finished with; None for the other tasks.
        finished: whether forward finishes the outputs.
        candidates: of a detector, how many of the best pairs of anchor and class enter the suppression.
    """

    anchors: Tensor

    def __init__(
        self,
        model: nn.Module,
        image_size: tuple[int, int],
        suppression: Postprocess | None,
        finished: bool,
        candidates: int = CANDIDATES,
    ) -> None:
        super().__init__()
        self.model = model
        self.image_size = image_size
        self.suppression = suppression
        self.finished = finished
        self.candidates = candidates
        self.raw_names, self.finished_names = OUTPUTS[type(model)]
        if isinstance(model, SSDLite):
            self.register_buffer("anchors", model.anchors(image_size), persistent=False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what forward returns."""
        return self.finished_names if self.finished else self.raw_names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.raw(images)
        if self.finished:
            outputs = self.finish(outputs, (images.shape[2], images.shape[3]))
        return tuple(outputs[name] for name in self.outputs)

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        """The network's outputs by name."""
        outputs = self.model(images)
        return outputs if isinstance(outputs, dict) else {"logits": outputs}

    def finish(self, outputs: Mapping[str, Tensor], image_size: tuple[int, int]) -> dict[str, Tensor]:
        """What the raw outputs for pictures of (H, W) mean."""
        if isinstance(self.model, Segmenter):
            return {"classes": class_map(outputs["logits"], image_size, self.model.head.align_corners)}
        if isinstance(self.model, Classifier):
            return {"probabilities": outputs["logits"].softmax(-1)}
        assert self.suppression is not None
        found = self.suppression.fixed_shape(dict(outputs), self.anchors, self.image_size, self.candidates)
        return dict(zip(self.finished_names, found, strict=True))
