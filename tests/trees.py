"""Tiny data sets drawn for one test, in the exact layouts that users have."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SCENE_IDS = (7, 8, 11, 23, 26)  # road, sidewalk, building, sky, car


def write_cityscapes_tree(
    root: Path,
    split: str = "train",
    cities: Sequence[str] = ("aachen",),
    count: int = 2,
    size: tuple[int, int] = (32, 64),
    annotations: str | None = "gtFine",
) -> list[Path]:
    """Write ``count`` pictures a city below ``root`` and return their files.

    Every picture is blocks of flat colours, one a class, with noise: a network can learn them. ``annotations=None``
    writes no labels. The same arguments draw the same pictures; other splits and cities draw others.
    """
    pictures = []
    for city in cities:
        rng = np.random.default_rng([*split.encode(), *city.encode()])
        for frame in range(count):
            label = np.repeat(np.repeat(rng.choice(SCENE_IDS, size=(4, 4)).astype(np.uint8), 64, 0), 64, 1)
            label = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
            image = np.stack([label * 7, 255 - label * 5, label * 3], -1) + rng.integers(0, 20, (*size, 3))
            stem = f"{city}_{frame:06d}_000019"
            picture = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            write_png(picture, image.astype(np.uint8))
            pictures.append(picture)
            if annotations is not None:
                write_png(label_path(picture, annotations), label)
    return pictures


def label_path(picture: Path, annotations: str = "gtFine") -> Path:
    """Where the label of a picture stands in the tree."""
    root, split, city = picture.parents[3], picture.parents[1].name, picture.parent.name
    return root / annotations / split / city / picture.name.replace("leftImg8bit", f"{annotations}_labelIds")


def write_png(path: Path, array: np.ndarray) -> Path:
    """Write (H, W) values or an (H, W, 3) RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)
    return path


def write_coco_tree(root: Path, split: str = "train2017", count: int = 4, **changes: object) -> dict:
    """Write ``count`` pictures of 40x60 pixels with bright boxes on grey and their COCO json below ``root``.

    Categories 3 (square) and 7 (bar); picture k has k boxes, so the first has none, and the third annotation is a
    crowd. ``changes`` replace keys of the json, which is returned. The same arguments draw the same pictures.
    """
    rng = np.random.default_rng([*split.encode()])
    images, annotations = [], []
    for number in range(count):
        image = rng.integers(90, 110, (40, 60, 3)).astype(np.uint8)
        images.append({"id": 10 * (number + 1), "file_name": f"{number:03d}.png", "height": 40, "width": 60})
        for _ in range(number):
            width, height = (12, 12) if rng.random() < 0.5 else (20, 8)
            x, y = int(rng.integers(0, 60 - width)), int(rng.integers(0, 40 - height))
            image[y : y + height, x : x + width] = (250, 30, 30) if width == 12 else (30, 30, 250)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[-1]["id"],
                    "category_id": 3 if width == 12 else 7,
                    "bbox": [x, y, width, height],
                    "area": width * height * 0.8,
                    "iscrowd": int(len(annotations) == 2),
                }
            )
        write_png(root / split / images[-1]["file_name"], image)
    categories = [{"id": 7, "name": "bar"}, {"id": 3, "name": "square"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return content


def write_class_tree(root: Path, classes: Sequence[str], count: int = 3) -> None:
    """Write ``train`` and ``val`` with ``count`` noisy pictures of 40x60 pixels a class, each of its own grey."""
    for split in ("train", "val"):
        rng = np.random.default_rng([*split.encode()])
        for number, name in enumerate(sorted(classes)):
            for index in range(count):
                grey = 30 + 190 * number // max(1, len(classes) - 1)
                picture = grey + rng.integers(-25, 25, (40, 60, 3))
                write_png(root / split / name / f"{index}.png", picture.astype(np.uint8))
