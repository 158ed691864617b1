"""The published tables, and the same figures counted on what the configurations in ``configs/paper`` build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from densevision.complexity import Complexity, measure
from densevision.config import load_config
from densevision.models import build_model, default_num_classes

# table -> tolerated differences of parameters and MAdds, fractions of the published figures
TOLERANCES = {6: (0.02, 0.015), 7: (0.012, 0.01), 8: (0.012, 0.01)}
FULL, HALF = (1025, 2049), (513, 1025)  # (height, width) that the segmentation figures of the paper are for
SSD = (320, 320)


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    config: its YAML. params: in millions; None where the table gives none. madds: in billions.
    exact_params, exact_madds: our counts, for a row whose published digits are too few for the tolerance; the note
    says why. num_classes: None for the data format's own.
    """

    table: int
    row: str
    config: str
    image_size: tuple[int, int]
    params: float | None
    madds: float
    exact_params: int | None = None
    exact_madds: int | None = None
    num_classes: int | None = None
    note: str = ""

    @property
    def tolerance(self) -> tuple[float, float]:
        """Of parameters and MAdds."""
        return TOLERANCES[self.table]

    @property
    def conv_only(self) -> bool:
        """Whether the table counts convolutions alone; those of segmentation count more (see :func:`measure`)."""
        return self.table == 6


# MobileNetV3 paper (Howard et al., 2019), Table 6: SSDLite at 320x320, "+" the reduced tail. The rows of V1 and V2 are
# older than the others: they fit COCO's 80 classes, where the others count its ids up to 90; and a background each.
TABLE_6 = (
    Published(6, "V1", "paper/table6_v1", SSD, 5.1, 1.3, num_classes=80),
    Published(6, "V2", "paper/table6_v2", SSD, 4.3, 0.80, num_classes=80),
    Published(6, "MnasNet-A1", "paper/table6_mnasnet", SSD, 4.88, 0.84),
    Published(6, "V3-Large", "paper/table6_v3_large", SSD, 4.97, 0.62),
    Published(6, "V3-Large +", "paper/table6_v3_large_reduced", SSD, 3.22, 0.51),
    Published(
        6,
        "V2 0.35",
        "paper/table6_v2_035",
        SSD,
        0.93,
        0.16,
        exact_madds=166_713_786,
        note="0.1667 B is printed as 0.16, cut off; a unit of the last digit is 6 %",
    ),
    Published(6, "V2 0.5", "paper/table6_v2_050", SSD, 1.54, 0.27),
    Published(6, "MnasNet-A1 0.35", "paper/table6_mnasnet_035", SSD, 1.02, 0.18),
    Published(6, "MnasNet-A1 0.5", "paper/table6_mnasnet_050", SSD, 1.68, 0.29),
    Published(6, "V3-Small", "paper/table6_v3_small", SSD, 2.49, 0.21),
    Published(6, "V3-Small +", "paper/table6_v3_small_reduced", SSD, 1.77, 0.16),
)
# the same paper, Table 7: RF2 is the reduced tail, F the head's channels
TABLE_7 = (
    Published(7, "1  V2, R-ASPP, F 256", "paper/table7_row01", FULL, 2.11, 21.29),
    Published(7, "2  V2 RF2, R-ASPP, F 256", "paper/table7_row02", FULL, 1.15, 13.68),
    Published(7, "3  V2 RF2, LR-ASPP, F 256", "paper/table7_row03", FULL, 1.02, 12.83),
    Published(7, "4  V2 RF2, LR-ASPP, F 128", "paper/table7_row04", FULL, 0.98, 12.57),
    Published(7, "5  V3-Large, R-ASPP, F 256", "paper/table7_row05", FULL, 3.60, 18.43),
    Published(7, "6  V3-Large RF2, R-ASPP, F 256", "paper/table7_row06", FULL, 1.76, 11.24),
    Published(7, "7  V3-Large RF2, LR-ASPP, F 256", "paper/table7_row07", FULL, 1.63, 10.33),
    Published(7, "8  V3-Large RF2, LR-ASPP, F 128", "paper/table7_row08", FULL, 1.51, 9.74),
    Published(7, "9  V2 0.5 RF2, LR-ASPP, F 128", "paper/table7_row09", FULL, 0.28, 4.00),
    Published(
        7,
        "10 V2 0.35 RF2, LR-ASPP, F 128",
        "paper/table7_row10",
        FULL,
        0.16,
        2.54,
        exact_params=168_502,
        note="0.1685 M is printed as 0.16, cut off as in rows 2, 4 and 9; a unit of the last digit is 6 %",
    ),
    Published(7, "11 V3-Small RF2, LR-ASPP, F 128", "paper/table7_row11", FULL, 0.47, 2.90),
)
# the same paper, Table 8: all with RF2, LR-ASPP and F 128, on whole and on half-size pictures
TABLE_8 = (
    Published(8, "V3-Large, stride 32, full", "paper/table8_large_os32", FULL, None, 7.74),
    Published(8, "V3-Large, stride 32, half", "paper/table8_large_os32", HALF, None, 1.98),
    Published(8, "V3-Large, stride 16, full", "paper/table8_large_os16", FULL, None, 9.74),
    Published(8, "V3-Large, stride 16, half", "paper/table8_large_os16", HALF, None, 2.48),
    Published(8, "V3-Small, stride 32, full", "paper/table8_small_os32", FULL, None, 2.06),
    Published(8, "V3-Small, stride 32, half", "paper/table8_small_os32", HALF, None, 0.53),
    Published(8, "V3-Small, stride 16, full", "paper/table8_small_os16", FULL, None, 2.90),
    Published(8, "V3-Small, stride 16, half", "paper/table8_small_os16", HALF, None, 0.74),
)


@dataclass(frozen=True)
class Comparison:
    """A published row beside ours; differences are fractions of the published figure."""

    published: Published
    counted: Complexity

    @property
    def params_difference(self) -> float | None:
        published = self.published.params
        return None if published is None else self.counted.params / 1e6 / published - 1

    @property
    def conv_difference(self) -> float:
        return self.counted.conv_madds / 1e9 / self.published.madds - 1

    @property
    def madds_difference(self) -> float:
        """In the table's own way of counting."""
        if self.published.conv_only:
            return self.conv_difference
        return self.counted.paper_madds / 1e9 / self.published.madds - 1

    @property
    def problems(self) -> list[str]:
        """What is out of tolerance; nothing for a row that agrees."""
        problems = []
        params_tolerance, madds_tolerance = self.published.tolerance
        exact, difference = self.published.exact_params, self.params_difference
        if exact is not None:
            if self.counted.params != exact:
                problems.append(f"{self.counted.params} parameters, not the documented {exact}")
        elif difference is not None and abs(difference) > params_tolerance:
            problems.append(f"parameters {difference:+.1%}, tolerated {params_tolerance:.1%}")
        exact = self.published.exact_madds
        if exact is not None:
            if self.counted.conv_madds != exact:
                problems.append(f"{self.counted.conv_madds} MAdds, not the documented {exact}")
        elif abs(self.madds_difference) > madds_tolerance:
            problems.append(f"MAdds {self.madds_difference:+.1%}, tolerated {madds_tolerance:.1%}")
        return problems

    def to_dict(self) -> dict[str, Any]:
        """For json; parameters and MAdds as counted integers, published ones as printed."""
        return {
            "table": self.published.table,
            "row": " ".join(self.published.row.split()),
            "config": self.published.config,
            "image_size": list(self.published.image_size),
            "published_params_m": self.published.params,
            "params": self.counted.params,
            "params_difference": self.params_difference,
            "published_madds_b": self.published.madds,
            "conv_madds": self.counted.conv_madds,
            "conv_madds_difference": self.conv_difference,
            "paper_madds": self.counted.paper_madds,
            "paper_madds_difference": self.counted.paper_madds / 1e9 / self.published.madds - 1,
            "madds_difference": self.madds_difference,
            "tolerance": dict(zip(("params", "madds"), self.published.tolerance, strict=True)),
            "within_tolerance": not self.problems,
            "note": self.published.note,
        }


def compare(published: Published) -> Comparison:
    """Build the row's configuration, without storage, and count it."""
    config = load_config(published.config).config
    with torch.device("meta"):
        model = build_model(config.model, published.num_classes or default_num_classes(config))
    return Comparison(published, measure(model, published.image_size))
