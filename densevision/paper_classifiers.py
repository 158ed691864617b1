"""The published classifiers, and the same figures counted on what ``configs/paper/classification.yaml`` builds.

Parameters and multiply-adds of convolutions and linear layers for 1000 classes, in millions; the accuracies are those
of the publications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from densevision.complexity import Complexity, measure
from densevision.config import load_config
from densevision.models import build_model, default_num_classes

CONFIG = "paper/classification"
TOLERANCE = 0.01


@dataclass(frozen=True)
class PublishedClassifier:
    """A published row.

    model: its name. backbone, width, resolution: what changes in the configuration. params, madds: in millions as
    printed, digit for digit; None where nothing is published. top1: per cent on ImageNet's validation pictures.
    exact: our counts to the unit, where no network that can be installed counts the same, and of every row with a note.
    note: how a row is documented to differ, or what its figures rest on; such a row is held to the exact counts alone.
    """

    model: str
    backbone: str
    width: float
    resolution: int
    params: str | None
    madds: str
    top1: float | None
    exact: tuple[int, int] | None = None
    note: str = ""

    @property
    def overrides(self) -> list[str]:
        """What turns the configuration into this row's."""
        return [
            f"model.backbone.name={self.backbone}",
            f"model.backbone.width_mult={self.width}",
            f"data.image_size={self.resolution}",
        ]


_V2_PARAMS = "the official table leaves out some of the normalisations' parameters"
_TIMM = "timm's has the same layers as ours"
_NEXT = "the official code counts the same to the unit"
_QUOTED = "the published figures are quoted from memory, not checked against the paper"

# TF-slim, mobilenet_v1.md
MOBILENET_V1 = (
    PublishedClassifier("V1 1.0", "mobilenet_v1", 1.0, 224, "4.24", "569", 70.9),
    PublishedClassifier("V1 1.0", "mobilenet_v1", 1.0, 192, "4.24", "418", 70.0),
    PublishedClassifier("V1 1.0", "mobilenet_v1", 1.0, 160, "4.24", "291", 68.0),
    PublishedClassifier("V1 1.0", "mobilenet_v1", 1.0, 128, "4.24", "186", 65.2),
    PublishedClassifier(
        "V1 0.75",
        "mobilenet_v1",
        0.75,
        224,
        "2.59",
        "317",
        68.4,
        exact=(2_585_560, 325_400_448),
        note="an error of the official table; the paper prints 325 M",
    ),
    PublishedClassifier("V1 0.5", "mobilenet_v1", 0.5, 224, "1.34", "150", 63.3),
    PublishedClassifier("V1 0.25", "mobilenet_v1", 0.25, 224, "0.47", "41", 49.8),
)
# TF-slim, nets/mobilenet/README.md
MOBILENET_V2 = (
    PublishedClassifier("V2 1.4", "mobilenet_v2", 1.4, 224, "6.06", "582", 75.0),
    PublishedClassifier("V2 1.3", "mobilenet_v2", 1.3, 224, "5.34", "509", 74.4),
    PublishedClassifier(
        "V2 1.0", "mobilenet_v2", 1.0, 224, "3.47", "300", 71.8, exact=(3_504_872, 300_774_272), note=_V2_PARAMS
    ),
    PublishedClassifier(
        "V2 0.75", "mobilenet_v2", 0.75, 224, "2.61", "209", 69.8, exact=(2_636_424, 209_069_792), note=_V2_PARAMS
    ),
    PublishedClassifier("V2 0.5", "mobilenet_v2", 0.5, 224, "1.95", "97", 65.4),
    PublishedClassifier(
        "V2 0.35", "mobilenet_v2", 0.35, 224, "1.66", "59", 60.3, exact=(1_677_128, 59_285_808), note=_V2_PARAMS
    ),
)
# TF-slim, nets/mobilenet/README.md; width 0.35: of the paper, quoted
MOBILENET_V3 = (
    PublishedClassifier("V3-Large 1.0", "mobilenet_v3_large", 1.0, 224, "5.4", "217", 75.2),
    PublishedClassifier("V3-Large 0.75", "mobilenet_v3_large", 0.75, 224, "4.0", "155", 73.3),
    PublishedClassifier(
        "V3-Large 0.35",
        "mobilenet_v3_large",
        0.35,
        224,
        "2.2",
        "40",
        64.2,
        exact=(2_131_832, 39_472_336),
        note=f"{_QUOTED}; the rule of width 0.75, which fits; a unit of the digits is 2 to 5 %",
    ),
    PublishedClassifier("V3-Large minimalistic", "mobilenet_v3_large_minimalistic", 1.0, 224, "3.9", "209", 72.3),
    PublishedClassifier("V3-Small 1.0", "mobilenet_v3_small", 1.0, 224, "2.5", "56", 67.4),
    PublishedClassifier(
        "V3-Small 0.75", "mobilenet_v3_small", 0.75, 224, "2.0", "44", 65.4, exact=(2_041_872, 43_399_344), note=_TIMM
    ),
    PublishedClassifier(
        "V3-Small 0.35",
        "mobilenet_v3_small",
        0.35,
        224,
        "1.4",
        "12",
        49.8,
        exact=(1_358_288, 12_815_840),
        note=f"{_QUOTED}; the rule of width 0.75, whose 12.8 M are 12 cut off, a unit of which is 8 %",
    ),
    PublishedClassifier(
        "V3-Small minimalistic",
        "mobilenet_v3_small_minimalistic",
        1.0,
        224,
        "2.0",
        "65",
        61.9,
        exact=(2_044_736, 52_288_448),
        note=f"the official table prints 65 M; {_TIMM}",
    ),
)
# MnasNet paper; widths of A1 other than 1: quoted
MNASNET = (
    PublishedClassifier(
        "MnasNet-A1 1.4",
        "mnasnet_a1",
        1.4,
        224,
        "6.1",
        "600",
        77.2,
        exact=(6_105_992, 586_317_952),
        note=f"{_QUOTED}; {_TIMM}",
    ),
    PublishedClassifier("MnasNet-A1 1.0", "mnasnet_a1", 1.0, 224, "3.9", "312", 75.2, exact=(3_887_038, 311_579_072)),
    PublishedClassifier(
        "MnasNet-A1 0.75",
        "mnasnet_a1",
        0.75,
        224,
        "2.9",
        "227",
        73.3,
        exact=(2_912_278, 223_448_480),
        note=f"{_QUOTED}; {_TIMM}",
    ),
    PublishedClassifier(
        "MnasNet-A1 0.5",
        "mnasnet_a1",
        0.5,
        224,
        "2.1",
        "105",
        68.9,
        exact=(2_082_006, 103_162_992),
        note=f"{_QUOTED}; {_TIMM}",
    ),
    PublishedClassifier(
        "MnasNet-A1 0.35",
        "mnasnet_a1",
        0.35,
        224,
        "1.7",
        "63",
        64.1,
        exact=(1_747_018, 61_681_920),
        note=f"{_QUOTED}; the rule of the other widths",
    ),
    PublishedClassifier("MnasNet-B1", "mnasnet_b1", 1.0, 224, "4.4", "315", 74.5),
    PublishedClassifier(
        "MnasNet-Small",
        "mnasnet_small",
        1.0,
        224,
        "1.9",
        "65.1",
        64.9,
        exact=(2_030_264, 68_339_184),
        note=f"the official code's network, 5 % above the paper's count; {_TIMM}",
    ),
)
# ProxylessNAS paper and official code
PROXYLESSNAS = (
    PublishedClassifier(
        "ProxylessNAS-mobile", "proxylessnas_mobile", 1.0, 224, "4.08", "320", 74.6, exact=(4_080_512, 320_427_584)
    ),
)
# MobileNeXt paper and official code
MOBILENEXT = (
    PublishedClassifier("MobileNeXt 1.4", "mobilenext", 1.4, 224, "6.1", "590", 76.1, exact=(6_126_168, 588_319_256)),
    PublishedClassifier(
        "MobileNeXt 1.0", "mobilenext", 1.0, 224, "3.4", "300", 74.0, exact=(3_535_416, 311_342_592), note=_NEXT
    ),
    PublishedClassifier(
        "MobileNeXt 0.75",
        "mobilenext",
        0.75,
        224,
        "2.5",
        "210",
        72.0,
        exact=(2_766_168, 207_926_720),
        note=_NEXT,
    ),
    PublishedClassifier(
        "MobileNeXt 0.5", "mobilenext", 0.5, 224, "2.1", "110", 67.7, exact=(2_152_304, 103_256_448), note=_NEXT
    ),
    PublishedClassifier(
        "MobileNeXt 0.35", "mobilenext", 0.35, 224, "1.8", "80", 64.7, exact=(1_913_976, 75_141_032), note=_NEXT
    ),
)
# FBNetV2 paper and the comments of its model definitions
FBNETV2 = (
    PublishedClassifier(
        "FBNetV2-F0",
        "fbnetv2_f0",
        1.0,
        224,
        "1.53",
        "65",
        None,
        exact=(2_822_360, 66_280_000),
        note="from a comment of the model definitions that leaves out the last linear layer, 1.28 M of each",
    ),
    PublishedClassifier("FBNetV2-F1", "fbnetv2_f1", 1.0, 128, "6.0", "56", 68.3, exact=(6_024_736, 56_231_936)),
    PublishedClassifier("FBNetV2-F2", "fbnetv2_f2", 1.0, 160, "6.0", "85", 71.1, exact=(6_024_736, 85_163_192)),
    PublishedClassifier("FBNetV2-F3", "fbnetv2_f3", 1.0, 192, "6.9", "122", 73.1, exact=(6_924_832, 121_423_712)),
    PublishedClassifier("FBNetV2-F4", "fbnetv2_f4", 1.0, 224, "7.0", "238", 75.8, exact=(7_022_864, 237_605_592)),
    PublishedClassifier("FBNetV2-L1", "fbnetv2_l1", 1.0, 224, None, "325", 77.2, exact=(8_538_776, 325_025_344)),
    PublishedClassifier("FBNetV2-L2", "fbnetv2_l2", 1.0, 256, "8.5", "424", 78.2, exact=(8_538_776, 422_610_304)),
)
CLASSIFIERS = (*MOBILENET_V1, *MOBILENET_V2, *MOBILENET_V3, *MNASNET, *PROXYLESSNAS, *MOBILENEXT, *FBNETV2)


@dataclass(frozen=True)
class ClassifierComparison:
    """A published row beside ours."""

    published: PublishedClassifier
    counted: Complexity

    @property
    def problems(self) -> list[str]:
        """What is out of tolerance; nothing for a row that agrees."""
        row, counted = self.published, self.counted
        exact = row.exact or (None, None)
        problems = [
            *_inexact("parameters", counted.params, exact[0]),
            *_inexact("MAdds", counted.conv_madds, exact[1]),
        ]
        if not row.note:
            problems += [
                *_out_of_tolerance("parameters", counted.params, row.params),
                *_out_of_tolerance("MAdds", counted.conv_madds, row.madds),
            ]
        return problems

    @property
    def cut_off(self) -> bool:
        """Whether a figure agrees only in the digits printed, rounded or cut off, and not within the tolerance."""
        row = self.published
        pairs = ((self.counted.params, row.params), (self.counted.conv_madds, row.madds))
        return any(printed is not None and abs(difference(counted, printed)) > TOLERANCE for counted, printed in pairs)

    def to_dict(self) -> dict[str, Any]:
        """For json; counted figures as integers, published ones in millions."""
        row = self.published
        return {
            "model": row.model,
            "config": CONFIG,
            "overrides": row.overrides,
            "published_params_m": None if row.params is None else float(row.params),
            "params": self.counted.params,
            "published_madds_m": float(row.madds),
            "conv_madds": self.counted.conv_madds,
            "published_top1": row.top1,
            "within_tolerance": not self.problems,
            "note": row.note,
        }


def difference(counted: int, printed: str) -> float:
    """As a fraction of the published millions."""
    return counted / 1e6 / float(printed) - 1


def as_printed(counted: int, like: str) -> tuple[str, str]:
    """The count in millions with as many digits as ``like``, rounded and cut off, since tables do both."""
    digits = len(like.partition(".")[2])
    cut = math.floor(counted / 1e6 * 10**digits) / 10**digits
    return f"{counted / 1e6:.{digits}f}", f"{cut:.{digits}f}"


def _inexact(what: str, counted: int, exact: int | None) -> list[str]:
    return [f"{counted} {what}, not the documented {exact}"] if exact not in (None, counted) else []


def _out_of_tolerance(what: str, counted: int, printed: str | None) -> list[str]:
    if printed is None:
        return []
    off = difference(counted, printed)
    agrees = abs(off) <= TOLERANCE or printed in as_printed(counted, printed)
    return [] if agrees else [f"{what} {off:+.1%}, tolerated {TOLERANCE:.1%}"]


def compare_classifier(published: PublishedClassifier) -> ClassifierComparison:
    """Build the row's configuration, without storage, and count it."""
    config = load_config(CONFIG, published.overrides).config
    with torch.device("meta"):
        model = build_model(config.model, default_num_classes(config))
    return ClassifierComparison(published, measure(model, (published.resolution, published.resolution)))
