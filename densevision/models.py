"""Where backbone tables, heads and configurations meet."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from densevision.backbones import Backbone, architecture_to_dict
from densevision.backbones.pretrained import Pretrained, for_classes, load_backbone, load_whole, read_pretrained
from densevision.classification import ClassificationHead, Classifier
from densevision.config import load_config
from densevision.config.lookup import lookup
from densevision.config.schema import BackboneConfig, Config, HeadConfig, ModelConfig
from densevision.detection import ssdlite
from densevision.detection.postprocess import Postprocess
from densevision.errors import UserError
from densevision.layers import Preprocess
from densevision.model_backbone import build_architecture, first_reduced_block, output_stride
from densevision.model_heads import (
    DETECTION_HEADS,
    HEADS,
    anchor_shapes,
    norm_spec,
    published_norm,
    ssdlite_features,
)
from densevision.segmentation import heads
from densevision.segmentation.segmenter import Segmenter
from densevision.structures import LabelMap

# formats whose classes are known without the files; COCO's published heads count its ids, 1 to 90 with gaps; the first
# of VOC's is the background, which masks have
FIXED_NUM_CLASSES = {"cityscapes": 19, "voc": 21, "coco": 90, "imagenet": 1000}


def create_model(path: str | Path, overrides: Sequence[str] = (), num_classes: int | None = None) -> nn.Module:
    """A configuration's model, with its pretrained weights if it names any.

    Args:
        path: a YAML file, or one of the project's configurations by name.
        overrides: ``["model.backbone.width_mult=0.75"]``.
        num_classes: None for the data format's own, where that is fixed (Cityscapes 19, VOC 21 and a
            detector's 20).

    Returns:
        as :func:`build_model`.

    Raises:
        UserError: a mistake in the configuration; names the file or override and what is right.
    """
    loaded = load_config(path, overrides)
    with loaded.blaming_origin():
        return build_model(loaded.config.model, num_classes or default_num_classes(loaded.config))


def coco_ids(label_map: LabelMap) -> Sequence[int] | None:
    """The data set's ids where they are COCO's, each with the name that it has there; None where one is not."""
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    names = dict(enumerate(SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]))
    of_coco = all(names.get(id) == name for id, name in zip(label_map.ids, label_map.names, strict=True))
    return label_map.ids if of_coco else None


def build_model(
    model: ModelConfig, num_classes: int, load_weights: bool = True, class_ids: Sequence[int] | None = None
) -> Any:
    """The network that ``model`` describes, on the CPU, in training mode.

    Args:
        num_classes: K; a detector has one column more, for the background.
        load_weights: False leaves the ``pretrained`` keys alone, for a model whose weights come from its own
            checkpoint; ``model`` must then be :func:`resolved`, as epsilon, dilation and pixels follow those keys.
        class_ids: COCO's id of each class (:func:`coco_ids`). Where published weights of a whole detector know other
            classes than ``num_classes``, their columns are these ids, and those of the classes are taken.

    Returns:
        for images (B, 3, H, W), uint8 or float 0..255, a :class:`Segmenter`, -> logits (B, num_classes, h, w), a
        :class:`densevision.detection.ssdlite.SSDLite`, -> class_logits and box_deltas, or a :class:`Classifier`,
        -> logits (B, num_classes).

    Raises:
        UserError: an unknown name, or weights that do not fit; carries the configuration key.
    """
    weights = _read_weights(model) if load_weights else None
    model = _resolved(model, weights)
    architecture = build_architecture(model.backbone)
    head, features = lookup("head", model.head.name, HEADS, key="model.head.name")(model, architecture, num_classes)
    norm = norm_spec(model.backbone.norm, architecture.norm)
    assert model.preprocess is not None
    preprocess = Preprocess(model.preprocess)
    network: Segmenter | ssdlite.SSDLite | Classifier
    if isinstance(head, ssdlite.SSDLiteHead):
        backbone = Backbone(architecture, features, norm=norm, init_std=ssdlite.INIT_STD)
        network = ssdlite.SSDLite(preprocess, backbone, head, features, anchor_shapes(model.head))
    elif isinstance(head, ClassificationHead):
        network = Classifier(preprocess, Backbone(architecture, features, norm=norm), head, *features)
    else:
        assert isinstance(head, heads.RASPPHead | heads.LRASPPHead)
        network = Segmenter(preprocess, Backbone(architecture, features, norm=norm), head, features)
    if model.backbone.zero_init_residual:
        network.backbone.start_residuals_at_identity()
    if weights:
        _load(network, model, for_classes(weights, num_classes, class_ids))
    return network


def anchor_strides(model: ModelConfig) -> list[int]:
    """Pixels a cell of each of an SSDLite head's maps, without building the network.

    Raises:
        UserError: no such backbone.
    """
    architecture = build_architecture(model.backbone)
    strides = [architecture.feature_info[name].stride for name in ssdlite_features(model.head, architecture)]
    return strides + [strides[-1] * 2 ** (1 + number) for number in range(len(model.head.extras))]


def build_postprocess(head: HeadConfig) -> Postprocess:
    """What turns a detector's outputs into detections."""
    return Postprocess(
        score=head.score,
        score_threshold=head.score_threshold,
        nms_iou=head.nms_iou,
        max_detections=head.max_detections,
        candidates_per_class=head.candidates_per_class,
        clip_before_nms=head.clip_before_nms,
    )


def resolved(model: ModelConfig) -> ModelConfig:
    """A copy in which nothing is left to be decided: pixels, dilation, momentum, epsilon, a table have values.

    What a checkpoint should hold: it then means the same without the pretrained file.
    """
    return _resolved(model, _read_weights(model))


def default_num_classes(config: Config) -> int:
    """The class count of a data format that always has the same classes.

    Raises:
        UserError: the classes depend on the files, so they must be said or come from the data.
    """
    if config.data.name in FIXED_NUM_CLASSES:
        without_background = config.data.name == "voc" and config.task != "segmentation"
        return FIXED_NUM_CLASSES[config.data.name] - without_background
    raise UserError(f"the classes of '{config.data.name}' depend on its files; say num_classes", key="data.name")


def check_batch_norm(model: ModelConfig, crop_size: Sequence[int] | None, batch_size: int) -> None:
    """Refuse training batches in which a normalised channel has a single value, and so no variance.

    Args:
        crop_size: (height, width) of the training pictures; None where it is the pictures' own.
        batch_size: pictures a process and step.

    Raises:
        UserError: one picture with R-ASPP, whose pooled branch is a 1x1 map, or one picture no larger than a cell, of
            SSDLite's last map for one.
    """
    if batch_size > 1:
        return
    if model.head.name == "raspp":
        raise UserError(
            "R-ASPP normalises a pooled 1x1 map over the batch, so it trains on at least 2 pictures a process; raise "
            "data.batch_size, or use model.head.name=lraspp, which trains on 1",
            key="data.batch_size",
        )
    stride = output_stride(build_architecture(model.backbone))
    if (
        model.head.name == "ssdlite"
        and crop_size is not None
        and max(crop_size) <= stride * 2 ** len(model.head.extras)
    ):
        raise UserError(
            f"SSDLite's last map is a single cell of a picture of {crop_size[0]}x{crop_size[1]}, and normalised over "
            "the batch, so it trains on at least 2 pictures a process; raise data.batch_size",
            key="data.batch_size",
        )
    if crop_size is not None and max(crop_size) <= stride:
        raise UserError(
            f"a crop of {crop_size[0]}x{crop_size[1]} is one cell at output stride {stride}, which batch "
            "normalisation cannot train on alone; raise data.crop_size or data.batch_size",
            key="data.crop_size",
        )


def _read_weights(model: ModelConfig) -> Pretrained | None:
    for key, where, whole in (
        ("model.pretrained", model.pretrained, True),
        ("model.backbone.pretrained", model.backbone.pretrained, False),
    ):
        if where is None:
            continue
        family = build_architecture(model.backbone).family
        try:
            head = model.head.name if whole else None
            return read_pretrained(where, family, model.backbone.width_mult, head)
        except UserError as error:
            raise UserError(str(error), key=key) from error
    return None


def _load(network: Segmenter | ssdlite.SSDLite | Classifier, model: ModelConfig, weights: Pretrained) -> None:
    key = "model.pretrained" if model.pretrained is not None else "model.backbone.pretrained"
    try:
        if model.pretrained is not None:
            load_whole(network, weights)
        else:
            load_backbone(network.backbone, weights, first_reduced_block(model.backbone))
    except UserError as error:
        raise UserError(str(error), key=key) from error


def _resolved(model: ModelConfig, weights: Pretrained | None) -> ModelConfig:
    model = deepcopy(model)
    if model.backbone.dilation_rule is None:
        model.backbone.dilation_rule = (weights and weights.dilation_rule) or "old"
    architecture = build_architecture(model.backbone)
    if model.backbone.arch is not None:
        # the table says all that these keys say of a named one
        plain = BackboneConfig(pretrained=model.backbone.pretrained, norm=model.backbone.norm)
        plain.name, plain.arch = architecture.family, architecture_to_dict(architecture)
        plain.width_mult, plain.output_stride = model.backbone.width_mult, output_stride(architecture)
        plain.dilation_rule, plain.zero_init_residual = model.backbone.dilation_rule, model.backbone.zero_init_residual
        model.backbone = plain
    published, norm = architecture.norm, model.backbone.norm
    norm.momentum = published.momentum if norm.momentum is None else norm.momentum
    if norm.eps is None:
        norm.eps = weights.eps if weights and weights.eps is not None else published.eps
    norm, published = model.head.norm, published_norm(model.head.name)
    norm.momentum = published.momentum if norm.momentum is None else norm.momentum
    norm.eps = published.eps if norm.eps is None else norm.eps
    if model.head.name in DETECTION_HEADS:
        model.head.anchors = [[list(shape) for shape in shapes] for shapes in anchor_shapes(model.head)]
    if model.preprocess is None:
        model.preprocess = (weights and weights.preprocess) or "half"
    return model
