"""Small networks of every task with what a checkpoint says of them, and pictures to run them on."""

from functools import lru_cache

import cv2
import numpy as np
import torch

from densevision import __version__
from densevision.config import config_to_dict
from densevision.config.schema import Config
from densevision.latency import with_statistics
from densevision.models import build_model, resolved
from densevision.structures import LabelMap

SIZE = (64, 96)
LABELS = LabelMap((7, 8, 9), ("road", "sky", "tree"), ((128, 64, 128), (70, 130, 180), (0, 128, 0)))
TASKS = {"lraspp": "segmentation", "raspp": "segmentation", "ssdlite": "detection", "classifier": "classification"}


@lru_cache
def small_network(backbone, head):
    """(model, config) in evaluation mode; the same arguments give the same object, which nobody is to change."""
    config = Config(task=TASKS[head])
    config.data.name, config.data.image_size = "folders", list(SIZE)
    config.model.backbone.name, config.model.head.name = backbone, head
    config.model.backbone.width_mult, config.model.head.channels = 0.35, 8
    config.model.backbone.output_stride = 32 if head == "classifier" else 16
    config.model.head.extras = [64, 32]
    config.model.head.score_threshold, config.model.head.max_detections = 0.011, 20
    config.model = resolved(config.model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = with_statistics(build_model(config.model, LABELS.num_classes), SIZE)
    return model, config


def write_small_checkpoint(path, backbone, head):
    """A checkpoint of :func:`small_network`."""
    model, config = small_network(backbone, head)
    described = {"version": __version__, "config": config_to_dict(config), "label_map": LABELS.to_dict()}
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "densevision": described}, path)
    return path


def picture(height=100, width=120, seed=0):
    """(H, W, 3) uint8 RGB: blurred noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
