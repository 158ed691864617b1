"""SSDLite: extra maps behind a mobile backbone, and depthwise separable predictors on each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densevision.backbones import Backbone
from densevision.detection.anchors import AnchorCache, Shapes
from densevision.layers import ConvNormAct, NormSpec, truncated_normal_

# ssdlite_mobilenet_v3_*_320x320_coco.config: batch normalisation decay 0.97, epsilon 1e-3, also in the backbone
NORM = NormSpec(momentum=0.03, eps=1e-3)
# ibid.: deviation of the backbone's and the extra maps' truncated normal, and of the predictors' normal
INIT_STD = 0.03
MIN_CHANNELS = 16  # of the extra maps
PRIOR = 0.01  # probability of every class before training


class ExtraBlock(nn.Module):
    """1x1 conv to half of the output's channels -> 3x3 depthwise, stride 2 -> 1x1 conv, each normalised, ReLU6.

    (B, in_channels, h, w) -> (B, out_channels, ceil(h / 2), ceil(w / 2)).
    """

    def __init__(self, in_channels: int, out_channels: int, squeeze: int, norm: NormSpec) -> None:
        super().__init__()
        self.reduce = ConvNormAct(in_channels, squeeze, act="relu6", norm=norm)
        self.depthwise = ConvNormAct(squeeze, squeeze, 3, stride=2, groups=squeeze, act="relu6", norm=norm)
        self.project = ConvNormAct(squeeze, out_channels, act="relu6", norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(self.reduce(x)))


class Predictor(nn.Module):
    """3x3 depthwise, normalised, ReLU6 -> 1x1 conv: (B, in_channels, h, w) -> (B, h * w * anchors, outputs)."""

    def __init__(self, in_channels: int, anchors: int, outputs: int, norm: NormSpec) -> None:
        super().__init__()
        self.outputs = outputs
        self.depthwise = ConvNormAct(in_channels, in_channels, 3, groups=in_channels, act="relu6", norm=norm)
        self.project = nn.Conv2d(in_channels, anchors * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.depthwise(x))
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.outputs)


class SSDLiteHead(nn.Module):
    """The maps after the backbone's two, and a class and a box predictor of its own on each map.

    forward: c4 (B, in_channels[0], h, w), c5 (B, in_channels[1], ceil(h / 2), ...) -> as :class:`SSDLite`.
    Source: object_detection ``feature_map_generators.multi_resolution_feature_maps`` (``insert_1x1_conv``,
    ``use_depthwise``) and ``convolutional_box_predictor.py``.

    Args:
        in_channels: of the backbone's maps.
        extras: channels of the further maps at width 1; they are scaled by ``width_mult`` and cut off, not rounded.
        anchors: anchors a cell of each map.
        num_classes: K; one more column is the background.
        prior: whether every class starts with probability .01 rather than .5. The official configuration asks for it
            (``class_prediction_bias_init: -4.6``), the official depthwise predictor ignores it; without, the first
            losses are of the order of 100.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        extras: Sequence[int],
        anchors: Sequence[int],
        num_classes: int,
        width_mult: float = 1.0,
        prior: bool = True,
        norm: NormSpec = NORM,
    ) -> None:
        super().__init__()
        channels = list(in_channels)
        self.extras = nn.ModuleList()
        for depth in extras:
            out, squeeze = (max(int(c * width_mult), MIN_CHANNELS) for c in (depth, depth // 2))
            self.extras.append(ExtraBlock(channels[-1], out, squeeze, norm))
            channels.append(out)
        pairs = list(zip(channels, anchors, strict=True))
        self.class_predictors = nn.ModuleList(Predictor(c, n, num_classes + 1, norm) for c, n in pairs)
        self.box_predictors = nn.ModuleList(Predictor(c, n, 4, norm) for c, n in pairs)
        self._initialise(prior)

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        features = list(maps)
        for extra in self.extras:
            features.append(extra(features[-1]))
        pairs = [zip(heads, features, strict=True) for heads in (self.class_predictors, self.box_predictors)]
        classes, boxes = (torch.cat([predict(x) for predict, x in pair], dim=1) for pair in pairs)
        return {"class_logits": classes, "box_deltas": boxes}

    def _initialise(self, prior: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module.bias is None:
                    truncated_normal_(module.weight, std=INIT_STD)
                else:
                    nn.init.normal_(module.weight, std=INIT_STD)
                    nn.init.zeros_(module.bias)
        for predictor in self.class_predictors if prior else ():
            nn.init.constant_(predictor.get_submodule("project").bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]


class SSDLite(nn.Module):
    """A backbone and SSDLite's head, with the normalisation of the pixels in front.

    forward: images (B, 3, H, W) uint8 or float in 0..255 -> ``class_logits`` (B, A, K + 1), column 0 the background,
    and ``box_deltas`` (B, A, 4), offsets from :meth:`anchors` (see :mod:`densevision.detection.box_coder`); alike in
    training and evaluation. Matching, loss and choice of the detections are the task's part.

    Args:
        preprocess: pixels -> normalised floats.
        backbone: normalised floats -> {feature: map}.
        head: maps -> outputs.
        features: the backbone's features that the head takes, in the order of its arguments.
        shapes: the anchors of each map.
    """

    def __init__(
        self, preprocess: nn.Module, backbone: Backbone, head: SSDLiteHead, features: Sequence[str], shapes: Shapes
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = backbone
        self.head = head
        self.features = tuple(features)
        strides = [backbone.feature_info[name].stride for name in features]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(len(head.extras))]
        self.anchor_cache = AnchorCache(shapes, strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(self.preprocess(images))
        return self.head(*(maps[name] for name in self.features))

    def anchors(self, image_size: tuple[int, int]) -> Tensor:
        """(A, 4) float32 xyxy pixels of a picture of (H, W), in the order of the outputs, on the model's device."""
        return self.anchor_cache((image_size[0], image_size[1]), next(self.buffers()).device)
