"""Tiny data sets drawn for one test, in the exact layouts that users have."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

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


def voc_xml(objects: Sequence[tuple], name: str = "p.png", size: tuple[int, int] | None = (40, 60)) -> str:
    """An annotation file of objects (name, xmin, ymin, xmax, ymax[, difficult])."""
    entries = "".join(
        f"<object><name>{kind}</name>{f'<difficult>{hard[0]}</difficult>' if hard else ''}<bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for kind, x1, y1, x2, y2, *hard in objects
    )
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    return f"<annotation><filename>{name}</filename>{stated}{entries}</annotation>"


def write_voc_tree(root: Path, splits: dict[str, int] | None = None, classes: Sequence[str] = ("cat", "dog")) -> Path:
    """Write a VOC tree of 40x60 pictures, by split so many: boxes and masks of squares and bars; return its folder.

    Picture k of a split has k objects, the third of them difficult; masks number the classes from 1, have 255 around
    objects, and VOC's palette.
    """
    tree = root / "VOCdevkit" / "VOC2007"
    for split, count in (splits or {"train": 4, "val": 4}).items():
        rng, names = np.random.default_rng([*split.encode()]), [f"{split}_{k}" for k in range(count)]
        for number, name in enumerate(names):
            image, mask = rng.integers(90, 110, (40, 60, 3)).astype(np.uint8), np.zeros((40, 60), np.uint8)
            objects = []
            for k in range(number):
                label = int(rng.integers(0, 2))
                width, height = ((12, 12), (20, 8))[label]
                x, y = int(rng.integers(1, 60 - width)), int(rng.integers(1, 40 - height))
                image[y : y + height, x : x + width] = ((250, 30, 30), (30, 30, 250))[label]
                mask[y - 1 : y + height + 1, x - 1 : x + width + 1] = 255
                mask[y : y + height, x : x + width] = label + 1
                objects.append((classes[label], x + 1, y + 1, x + width, y + height, int(k == 2)))
            write_png(tree / "JPEGImages" / f"{name}.png", image)
            write_palette(tree / "SegmentationClass" / f"{name}.png", mask)
            write_text(tree / "Annotations" / f"{name}.xml", voc_xml(objects, f"{name}.png"))
        for lists in ("Main", "Segmentation"):
            write_text(tree / "ImageSets" / lists / f"{split}.txt", "\n".join(names) + "\n")
    return tree


def write_palette(path: Path, values: np.ndarray) -> Path:
    """Write (H, W) values as indices of a palette of 256 colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(path)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
