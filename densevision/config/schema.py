"""Every configuration key there is, with its type, default and meaning.

A YAML file or an override may name these keys and no others. ``null`` stands for "decided elsewhere", and
the comment says where. Sizes are ``(height, width)``; one number means a square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def choice(default: Any, *others: Any) -> Any:
    """A field whose value is one of the given; the first is the default."""
    return field(default=default, metadata={"choices": (default, *others)})


def number(default: Any, minimum: float, maximum: float = float("inf")) -> Any:
    """A numeric field with its permitted range, both ends included."""
    return field(default=default, metadata={"range": (minimum, maximum)})


def size(default: Any = None) -> Any:
    """A field that holds ``null`` or (height, width) in pixels; a single number is a square."""
    return field(default=default, metadata={"size": True})


def pair(low: float, high: float) -> Any:
    """A field that holds two numbers, the first not above the second."""
    return field(default_factory=lambda: [low, high], metadata={"pair": True})


def values(default: Sequence[Any], expected: str, fits: Callable[[Any], bool], least: int = 1) -> Any:
    """A field that holds a list of at least so many values to choose from, each fitting and none twice.

    expected: what fits, for people ("an odd number from 1 to 31").
    """
    return field(default_factory=lambda: list(default), metadata={"each": (expected, fits, least)})


@dataclass
class NormConfig:
    """Batch normalisation; null takes what the family or head was published with."""

    momentum: float | None = number(None, 0.0, 1.0)
    eps: float | None = number(None, 0.0)


@dataclass
class BackboneConfig:
    name: str = ""  # a key of densevision.backbones.BACKBONES; with arch, what its table calls itself
    # a file with a table of its own, as the searches write them (densevision/backbones/arch_file.py): built as it
    # stands, so that of the keys below down to hswish_from only width_mult means anything, for SSDLite's extra maps;
    # in a stored configuration the table itself
    arch: Any = None
    width_mult: float = number(1.0, 0.05, 10.0)
    output_stride: int = choice(32, 16, 8)
    # false | true (the published cut for the config's task) | segmentation | detection
    reduced_tail: bool | str = choice(False, True, "segmentation", "detection")
    # which block first uses the new atrous rate: the one after the block that lost its stride (old, as
    # published) or that block itself (new, as torchvision); null follows the pretrained weights, old without
    dilation_rule: str | None = choice(None, "old", "new")
    # V2 and MnasNet at widths below 1: whether the last 1x1 is narrower too (SSDLite) or as published (ImageNet)
    scale_last_conv: bool = False
    identity_tensor_multiplier: float = number(1.0, 0.0, 1.0)  # MobileNeXt: share of the channels that residuals add
    # V3: outputs of the first block with h-swish, ReLU before it; 0: ReLU everywhere; null: as published
    hswish_from: int | None = number(None, 0)
    zero_init_residual: bool = False  # from scratch, blocks with a skip begin as the skip alone
    # path of a state dict (torchvision's or timm's names) or of a checkpoint; torchvision | timm downloads
    pretrained: str | None = None
    norm: NormConfig = field(default_factory=NormConfig)


@dataclass
class HeadConfig:
    name: str = MISSING  # a key of densevision.models.HEADS
    channels: int = number(128, 1)
    low_tap: str = choice("c3_depthwise", "c3_first", "c3")  # LR-ASPP's 1/8 map
    # the window of LR-ASPP's average pooling, in input pixels; null pools the whole map
    pool_window: Any = size((769, 769))
    pool_stride: Any = size((16, 20))  # in cells of the pooled map
    gate: str = choice("hard_sigmoid", "sigmoid")
    gate_bias: bool = True
    align_corners: bool = True
    dropout: float = number(0.1, 0.0, 1.0)  # before the last layer; R-ASPP and classifier
    # SSDLite: the finest map; c3_expansion puts one of half the stride before the published ones, for small objects
    first_map: str = choice("c4_expansion", "c3_expansion")
    # SSDLite: channels of the maps behind the backbone's, at width 1
    extras: list[int] = field(default_factory=lambda: [512, 256, 256, 128])
    # ssdlite (as published) | torchvision | for each map a list of [width, height], in fractions of the shorter side
    # of data.image_size; check_data proposes such lists
    anchors: Any = "ssdlite"
    score: str = choice("sigmoid", "softmax")  # sigmoid: focal loss; softmax: cross-entropy with mined negatives
    score_threshold: float = number(1e-8, 0.0, 1.0)  # only higher scores are detections
    nms_iou: float = number(0.6, 0.0, 1.0)  # of two boxes of a class that overlap more, the better stays
    max_detections: int = number(100, 1)  # a picture
    candidates_per_class: int | None = number(None, 1)  # that enter the suppression; null: all
    clip_before_nms: bool = False  # boxes are cut to the picture before the suppression, or after
    norm: NormConfig = field(default_factory=NormConfig)


@dataclass
class ModelConfig:
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    # how 0..255 becomes the network's input: half is [-1, 1]; null follows the pretrained weights, half without
    preprocess: str | None = choice(None, "half", "imagenet")
    # backbone and head: path of a state dict of torchvision's lraspp_mobilenet_v3_large or
    # ssdlite320_mobilenet_v3_large, of a classifier of torchvision's or timm's, or of a checkpoint; or torchvision
    # (downloads the first two)
    pretrained: str | None = None


@dataclass
class DataConfig:
    name: str = MISSING  # a key of datamodules.DATAMODULES
    root: str | None = None  # null: the environment variable that the format's own tools use
    train_split: str = "train"
    val_split: str = "val"
    train_cities: list[str] | None = None  # null: all
    val_cities: list[str] | None = None
    annotations: str = choice("gtFine", "gtCoarse")
    # coco: folders of pictures and annotation files, below root; a split whose file is null or has no "annotations"
    # can be predicted on, not judged
    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    val_images: str = "val2017"
    val_annotations: str | None = "annotations/instances_val2017.json"
    # voc: text files below root that list the pictures of train_split and of val_split, one or several each; null:
    # ImageSets/Main/{split}.txt, of masks ImageSets/Segmentation/{split}.txt
    train_list: Any = None
    val_list: Any = None
    # folders, voc: where pictures and masks are, below root; {split} stands for the split's name. null: images/{split}
    # and masks/{split} of folders, JPEGImages and SegmentationClass of voc
    images: str | None = None
    masks: str | None = None
    mask_suffix: str = ""  # folders: a mask has the name of its picture with this ("_mask") after it
    # folders, voc: a list of names, or a text file below root with a line a class: name | name, value |
    # name, red, green, blue; null: classes.txt of folders, of voc what its files say
    classes: Any = None
    ignored_classes: list[str] = field(default_factory=list)  # names of classes that are not learnt and not judged
    # share of train_split to hold out as val_split, where there is none; null: val_split is given
    val_fraction: float | None = number(None, 0.0, 1.0)
    split_seed: int = number(0, 0)  # which pictures are held out, whatever the experiment's seed
    # a regular expression on the names of pictures: those for which it finds the same stay together
    group: str | None = None
    # none | raw | compressed: decode every picture once and keep it, raw (3 bytes a pixel, the fastest) or compressed
    # (about the size of a PNG, without loss; for large PNGs: of JPEGs it makes loading slower)
    cache: str = choice("none", "raw", "compressed")
    cache_dir: str | None = None  # null: beside the data set; where that cannot be written, in the user's cache
    # detection: training pictures are kept shrunk to this shorter side, a little softer; null: as they are
    cache_side: int | None = number(None, 1)
    image_size: Any = size()  # what is read and evaluated at; null: the pictures' own
    crop_size: Any = size()  # the training crop; null: the whole picture
    scale_range: list[float] = pair(1.0, 1.0)  # random scale of a training picture
    scale_step: float = number(0.0, 0.0)  # grid of the random scale; 0: continuous
    # detection: crops of the training pictures: none | ssd_crop (TensorFlow's ssd_random_crop) | ssdlite (torchvision's
    # IoU crop) | ssd (torchvision's: colour distortion, zoom-out and IoU crop)
    augment: str = choice("none", "ssd_crop", "ssdlite", "ssd")
    # classification: share of a training picture's area that its random crop has, and of the shorter side that the
    # middle has which is evaluated
    crop_area: list[float] = pair(0.08, 1.0)
    eval_crop: float = number(0.875, 0.05, 1.0)
    flip: float = number(0.5, 0.0, 1.0)  # probability of a mirrored training picture
    vertical_flip: float = number(0.0, 0.0, 1.0)  # likewise upside down; detection
    photometric: float = number(0.0, 0.0, 1.0)  # probability of a colour change
    batch_size: int = number(8, 1)  # training pictures a process and step
    eval_batch_size: int = number(1, 1)
    num_workers: int = number(4, 0)  # loader processes a training process, at most one a core


@dataclass
class LossConfig:
    # null | sqrt (1 / sqrt(pixel frequency) of the training labels, mean 1) | a weight a class
    class_weights: Any = None
    class_weights_cap: float = number(4.0, 1.0)  # greatest weight of sqrt
    # only pixels whose true class has at most this probability are learnt from; null: all
    ohem: float | None = number(None, 0.0, 1.0)
    ohem_min_kept: float = number(0.0625, 0.0, 1.0)  # but at least this share of a batch's pixels, the hardest
    # classification: share of the truth that is spread over all classes; alpha of mixup and of cutmix, 0: none
    label_smoothing: float = number(0.0, 0.0, 1.0)
    mixup: float = number(0.0, 0.0)
    cutmix: float = number(0.0, 0.0)
    match_iou: float = number(0.5, 0.0, 1.0)  # overlap from which an anchor learns a box
    focal_alpha: float = number(0.75, 0.0, 1.0)  # weight of positive anchors, 1 - it of negative ones; sigmoid scores
    focal_gamma: float = number(2.0, 0.0)


@dataclass
class OptimConfig:
    name: str = choice("sgd", "adamw", "rmsprop", "muon")  # muon: the backbone's 1x1 convolutions; the rest as adamw
    lr: float = number(0.01, 0.0)
    momentum: float = number(0.9, 0.0, 1.0)  # sgd, rmsprop
    weight_decay: float = number(4e-5, 0.0)  # never on biases and normalisation
    decay_depthwise: bool = True  # weight decay on depthwise convolutions too
    backbone_lr_mult: float = number(1.0, 0.0)
    muon_lr_mult: float = number(1.0, 0.0)  # muon: of the backbone's 1x1 convolutions, beside the above
    schedule: str = choice("poly", "cosine", "exponential", "one_cycle", "constant")
    power: float = number(0.9, 0.0)  # poly
    decay_rate: float = number(0.99, 0.0, 1.0)  # exponential: the rate's factor after every decay_steps
    decay_steps: int = number(1, 1)
    warmup_steps: int = number(0, 0)  # linear; not with one_cycle, which has its own
    warmup_start: float = number(1e-3, 0.0, 1.0)  # share of lr that it begins with
    clip_norm: float | None = number(None, 0.0)  # greatest norm of the gradient; null: unbounded
    ema_decay: float | None = number(None, 0.0, 1.0)  # the average of the weights is judged and kept; null: none


@dataclass
class TrainerConfig:
    max_steps: int | None = number(None, 1)
    max_epochs: int | None = number(None, 1)
    val_every: int | None = number(None, 1)  # steps between evaluations; null: every epoch; always at the end
    log_every: int = number(20, 1)  # steps between written lines
    checkpoint_every: int = number(500, 1)  # steps between checkpoints; also after every evaluation
    pictures_every: int | None = number(None, 1)  # evaluations between fixed pictures; null: the last only
    pictures: int = number(4, 1)  # how many
    accelerator: str = "auto"
    devices: int | str = "auto"  # processes a node; torchrun and srun decide it themselves, and num_nodes
    num_nodes: int = number(1, 1)
    sync_batchnorm: bool = True  # batch normalisation over the pictures of all processes, or of each one's own
    precision: str = choice("32-true", "bf16-mixed", "16-mixed", "64-true")
    accumulate: int = number(1, 1)  # batches a step
    # activations lie with their channels innermost: training on a CPU is 1.6 times as fast; only rounding differs
    channels_last: bool = False
    compile: bool = False  # torch.compile in training, where it works
    # training batches from which each evaluation's batch-norm statistics are estimated; 0: training's averages
    bn_recalibration: int = number(0, 0)
    resume: str = "auto"  # auto (the run in output_dir goes on) | never | path of a checkpoint


@dataclass
class EvaluationConfig:
    """How a picture is seen in evaluation and prediction; with several views their probabilities are averaged."""

    mode: str = choice("whole", "slide")
    window: Any = size()  # slide: of the scaled picture; null: data.crop_size
    stride: Any = size()  # slide: between windows; null: two thirds of the window
    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False  # mirrored views too
    exact: bool = True  # false: class maps in half the time on a CPU, another rounding where classes nearly tie


@dataclass
class QuantizeConfig:
    # qat: the network of model.pretrained is trained on with int8 weights and activations, as it will be exported
    mode: str | None = choice(None, "qat")
    calibration_batches: int = number(8, 1)  # training batches from which the ranges of activations begin


@dataclass
class WandbConfig:
    mode: str = choice("auto", "online", "offline", "disabled")  # auto: WANDB_MODE, or online where there is a login
    project: str = "densevision"
    entity: str | None = None
    name: str | None = None  # null: the name of output_dir
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    # what becomes an artifact at the end: none | best | all (best.ckpt and last.ckpt)
    checkpoints: str = choice("none", "best", "all")


@dataclass
class Config:
    task: str = choice("segmentation", "detection", "classification")
    seed: int = number(0, 0, 2**32 - 1)
    output_dir: str | None = None  # null: runs/<name of the config file>
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
