"""Deployed networks against eager PyTorch and against torchvision's, in the same runtime, on one thread.

python tools/benchmarks/deployed.py [--runtime openvino] [eager] [lraspp] [ssdlite]

eager: our networks as files against themselves and against torchvision's of the same design in PyTorch, raw outputs;
ours must be three times as fast as torchvision's, whose own file stands beside it. lraspp: LR-ASPP on
MobileNetV3-Large as published against torchvision's, 512x1024, logits at the picture's size, 19 classes. ssdlite:
SSDLite on MobileNetV3-Large at 320x320 with torchvision's thresholds, pixels to boxes, about 20,000 candidates above
them; torchvision's model as it exports itself, ours with the suppression in the file; both in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import interleaved, one_thread, ratio, report
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from densevision.config import config_to_dict, load_config
from densevision.export import FORMATS, Deployed, Metadata, export_program, open_file, optimised
from densevision.latency import file_run, network_run, random_pictures, with_statistics
from densevision.models import build_postprocess, create_model
from densevision.structures import LabelMap

WANTED = {"eager": 3.0, "lraspp": 1.35, "ssdlite": 1.5}
STREET, SQUARE = (512, 1024), (320, 320)
CANDIDATES = 20_000


class FullSize(nn.Module):
    """Pixels -> (logits at the picture's size,), whichever the network."""

    outputs = ("logits",)

    def __init__(self, network: nn.Module, image_size: tuple[int, int], align_corners: bool) -> None:
        super().__init__()
        self.network, self.image_size, self.align_corners = network, image_size, align_corners

    def forward(self, images: Tensor) -> tuple[Tensor]:
        logits = self.network(images)
        logits = logits[0] if isinstance(logits, tuple) else logits
        return (F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=self.align_corners),)


class TheirSegmenter(nn.Module):
    """torchvision's LR-ASPP up to its coarse logits, with the normalisation of the pixels in front."""

    outputs = ("logits",)
    image_size = STREET

    def __init__(self) -> None:
        super().__init__()
        self.normalise = create_model("lraspp_v3_voc_torchvision").preprocess
        self.network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=19)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network.classifier(self.network.backbone(self.normalise(images))),)


class TheirDetector(nn.Module):
    """torchvision's SSDLite up to its raw logits, with the normalisation of the pixels in front."""

    outputs = ("box_regression", "class_logits")
    image_size = SQUARE

    def __init__(self) -> None:
        super().__init__()
        self.network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network.head(list(self.network.backbone((images / 255 - 0.5) / 0.5).values()))
        return found["bbox_regression"], found["cls_logits"]


PAIRS: dict[str, type[TheirSegmenter | TheirDetector]] = {
    "lraspp_v3_cityscapes": TheirSegmenter,
    "ssdlite_v3_coco": TheirDetector,
}


def write(deployed: Any, folder: Path, runtime: str, name: str) -> Path:
    """A file of ``deployed``, without the comparison that the command makes."""
    kind = FORMATS[runtime]
    path = folder / f"{name}{kind.suffix}"
    config = config_to_dict(load_config("lraspp_v3_cityscapes").config)
    label_map = LabelMap((0,), ("x",), ((0, 0, 0),))
    metadata = Metadata("segmentation", deployed.image_size, deployed.outputs, False, label_map, config)
    kind.write(export_program(deployed), path, metadata)
    return path


def eager(folder: Path, runtime: str, rounds: int) -> int:
    """Our networks and torchvision's in PyTorch and as files."""
    missed = 0
    for name, peer in PAIRS.items():
        torch.manual_seed(0)
        size = peer.image_size
        theirs = with_statistics(peer(), size)
        model = with_statistics(create_model(name), size)
        file = open_file(
            write(Deployed(optimised(model), size, None, finished=False), folder, runtime, name), threads=1
        )
        their_file = open_file(write(theirs, folder, runtime, f"{name}_torchvision"), threads=1)
        images = random_pictures(size)
        with torch.inference_mode():
            expected = model(torch.from_numpy(images))
        expected = expected if isinstance(expected, dict) else {"logits": expected}
        found = file(images)
        worst = max(float(np.abs(found[key] - value.numpy()).max()) for key, value in expected.items())
        quick = optimised(model).to(memory_format=torch.channels_last)
        print(f"\n{name}, {size[0]}x{size[1]}, raw outputs; greatest difference of the file {worst:.1e}")
        seconds = interleaved(
            {
                "torchvision, eager": network_run(theirs, size),
                f"torchvision, {runtime}": file_run(their_file, size),
                "densevision, eager": network_run(model, size),
                "densevision, load(optimize=True)": network_run(quick, size),
                f"densevision, {runtime}": file_run(file, size),
            },
            rounds,
        )
        missed |= report(seconds, "torchvision, eager", {f"densevision, {runtime}": WANTED["eager"]})
        missed |= int(worst > 1e-4)
        for fast in ("densevision, load(optimize=True)", f"densevision, {runtime}"):
            print(f"{fast}: {ratio(seconds, 'densevision, eager', fast):.2f} times as fast as densevision, eager")
    return missed


def lraspp(folder: Path, runtime: str, rounds: int) -> int:
    """The published LR-ASPP and torchvision's."""
    torch.manual_seed(0)
    ours = optimised(with_statistics(create_model("lraspp_v3_cityscapes"), STREET))
    theirs = with_statistics(TheirSegmenter(), STREET)
    runs = {}
    for name, network, align in (("torchvision", theirs, False), ("densevision", ours, ours.head.align_corners)):
        path = write(FullSize(network, STREET, align), folder, runtime, name)
        runs[name] = file_run(open_file(path, threads=1), STREET)
    print(f"\nLR-ASPP V3-Large in {runtime}, 512x1024, 19 classes, full-resolution logits")
    return report(interleaved(runs, rounds), "torchvision", {"densevision": WANTED["lraspp"]})


def ssdlite(folder: Path, runtime: str, rounds: int) -> int:
    """SSDLite from pixels to boxes; ``runtime`` is ONNX Runtime, the only one that torchvision's exports to."""
    import onnxruntime

    torch.manual_seed(0)
    theirs = with_statistics(TheirDetector(), SQUARE)
    reference = theirs.network
    name = "ssdlite_v3_coco_torchvision"
    model = with_statistics(create_model(name), SQUARE)
    settings = build_postprocess(load_config(name).config.model.head)
    images = random_pictures(SQUARE)
    pixels = torch.from_numpy(images)
    counts = []
    # the background's lead decides how many candidates pass the threshold
    for head, logits_of in (
        (theirs.network.head.classification_head, lambda: theirs(pixels)[1]),
        (model.head, lambda: model(pixels)["class_logits"]),
    ):
        counts.append(_spread_logits(head, logits_of, settings.score_threshold))
    scripted = folder / "torchvision.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(reference, ([pixels[0] / 255],), str(scripted), dynamo=False, opset_version=18)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(scripted), options, providers=["CPUExecutionProvider"])
    example = {session.get_inputs()[0].name: (images[0] / 255).astype(np.float32)}
    path = write(Deployed(optimised(model), SQUARE, settings, finished=True), folder, "onnx", "ours")
    runs: dict[str, Callable[[], object]] = {
        "torchvision": lambda: session.run(None, example),
        "densevision": file_run(open_file(path, threads=1), SQUARE),
    }
    found = len(session.run(None, example)[0]), int(open_file(path)(images)["count"][0])
    print(
        f"\nSSDLite V3-Large in onnx, 320x320, {counts[0]} and {counts[1]} candidates, {found[0]} and {found[1]} boxes"
    )
    return report(interleaved(runs, rounds), "torchvision", {"densevision": WANTED["ssdlite"]})


@torch.no_grad()
def _spread_logits(head: nn.Module, logits_of: Callable[[], Tensor], threshold: float) -> int:
    """Change the last layers so that the logits spread by 1 and :data:`CANDIDATES` scores pass; returns how many do."""
    logits = logits_of()
    classes = logits.shape[-1]
    layers = [
        module
        for module in head.modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.out_channels % classes == 0
        and module.bias is not None
    ]
    for layer in layers:
        layer.weight /= logits.std()
        layer.bias.zero_()
    low, high = 0.0, 20.0
    logits = logits_of()
    for _ in range(30):
        lead = (low + high) / 2
        raised = logits.clone()
        raised[..., 0] += lead
        passing = int((raised.softmax(-1)[..., 1:] > threshold).sum())
        low, high = (lead, high) if passing > CANDIDATES else (low, lead)
    for layer in layers:
        layer.bias.view(-1, classes)[:, 0] += lead
    return int((logits_of().softmax(-1)[..., 1:] > threshold).sum())


PARTS = {"eager": eager, "lraspp": lraspp, "ssdlite": ssdlite}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], metavar="PART")
    parser.add_argument("--runtime", default="onnx", choices=sorted(FORMATS))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    one_thread()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts or PARTS:
            missed |= PARTS[part](Path(folder), options.runtime, options.rounds)
    return missed


if __name__ == "__main__":
    sys.exit(main())
