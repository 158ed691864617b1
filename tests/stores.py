"""Stores of small pictures that are named by their files."""

import numpy as np

from datamodules.store import Store
from densevision.io import read_image
from tests.trees import write_png


def with_size(path):
    image = read_image(path)
    return image, image.shape[:2]


def pictures(tmp_path, count=12, size=(70, 40)):
    rng = np.random.default_rng(0)
    return [
        str(write_png(tmp_path / "data" / f"{i}.png", rng.integers(0, 256, (*size, 3), np.uint8))) for i in range(count)
    ]


def store(tmp_path, kind="raw"):
    return Store(tmp_path / "store", tmp_path / "data", compressed=kind == "compressed")


def stored_files(folder):
    return sorted(file for kind in ("raw", "strips") for file in folder.glob(f"??/*.{kind}"))
