"""VOC's annotation files: the xml of a picture becomes numbers, and what cannot be meant an error that names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from densevision.errors import UserError

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_DIFFICULT = {"1": True, "true": True, "0": False, "false": False, "": False, "unspecified": False}
_FURTHEST = 2.0**31  # beyond it a number is no place in a picture, and its square no area


@dataclass(frozen=True, eq=False)
class VocObjects:
    """What the xml file of a picture says.

    filename: the picture's, "" where nothing is said. size: (height, width), (0, 0) likewise. names: of the N objects'
    classes. boxes: (N, 4) float64 xywh pixels, from 0. difficult: (N,) bool.
    """

    filename: str
    size: tuple[int, int]
    names: tuple[str, ...]
    boxes: np.ndarray
    difficult: np.ndarray


def read_objects(path: Path) -> VocObjects:
    """Read the annotation file of a picture.

    VOC counts pixels from 1 and both corners belong to the box: xmin 1 and xmax 10 are the pixels 0 to 9, and x = 0,
    width = 10. Decimals, which some tools write, are read by the same rule. A size that is none is passed over, as the
    file's own counts.

    Raises:
        UserError: it is missing, no whole xml, declares entities, is of another shape, or an object has no name or
            corners that are no finite numbers; names the file and the object.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path} is not VOC's format: it holds <{root.tag[:60]}>, not <annotation>")
    objects = root.findall("object")
    boxes = np.array([_corners(f"{path}, object {k}", entry) for k, entry in enumerate(objects, 1)]).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2] - 1
    boxes[:, :2] -= 1
    return VocObjects(
        filename=(root.findtext("filename") or "").strip(),
        size=(_side(root, "height"), _side(root, "width")),
        names=tuple(_name(f"{path}, object {k}", entry) for k, entry in enumerate(objects, 1)),
        boxes=boxes,
        difficult=np.array([_difficult(f"{path}, object {k}", o) for k, o in enumerate(objects, 1)], bool),
    )


def _parse(path: Path) -> Element:
    """The root of the file's tree; nothing but the file is read, and no entity is ever expanded."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path} cannot be read: {error}") from error
    if not data:
        raise UserError(f"{path} is empty (0 bytes)")

    def refuse(*declaration: object) -> NoReturn:
        raise UserError(f"{path} declares entities, which VOC's files do not and which can fill the memory")

    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError) as error:  # of an unknown encoding, the latter two
        raise UserError(f"{path} is not whole xml: {error}") from error


def _name(where: str, entry: Element) -> str:
    name = " ".join((entry.findtext("name") or "").split())
    if not name:
        raise UserError(f"{where} has no name, which says its class")
    return name


def _corners(where: str, entry: Element) -> list[float]:
    if (count := len(entry.findall("bndbox"))) > 1:
        raise UserError(f"{where} has {count} bndbox; one is expected, and an object for each")
    texts = [(entry.findtext(f"bndbox/{side}") or "").strip() for side in _SIDES]
    try:
        corners = [float(text) for text in texts]
    except ValueError:
        corners = []
    if not corners or not all(abs(number) < _FURTHEST for number in corners):  # NaN too
        said = ", ".join(f"{side} '{text[:20]}'" for side, text in zip(_SIDES, texts, strict=True))
        raise UserError(f"{where} has the bndbox {said}; four numbers of pixels are expected")
    return corners


def _difficult(where: str, entry: Element) -> bool:
    text = (entry.findtext("difficult") or "").strip().lower()
    if text not in _DIFFICULT:
        raise UserError(f"{where} has the difficult '{text[:20]}'; 0 or 1 is expected")
    return _DIFFICULT[text]


def _side(root: Element, name: str) -> int:
    try:
        number = float(root.findtext(f"size/{name}") or "")
    except ValueError:
        return 0
    return int(number) if 0 < number < _FURTHEST else 0
