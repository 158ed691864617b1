"""What an exported file says about itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from densevision import __version__
from densevision.config import Config, config_from_dict
from densevision.errors import UserError
from densevision.structures import LabelMap

KEY = "densevision"  # under which a file holds it, as JSON


@dataclass(frozen=True)
class Metadata:
    """Everything that prediction needs beside the file's own computation.

    task: as in the configuration. image_size: (height, width) of the pictures that the file takes. sizes: where it
    takes others too, the least and the greatest height and those of the width. outputs: their names, in order.
    finished: whether they are what the network's outputs mean, see :class:`densevision.export.Deployed`.
    label_map: the classes. config: resolved, as a checkpoint holds it. precision: ``int8``, ``fp16`` or None for
    float32. version: of densevision.
    """

    task: str
    image_size: tuple[int, int]
    outputs: tuple[str, ...]
    finished: bool
    label_map: LabelMap
    config: dict[str, Any]
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    precision: str | None = None
    version: str = __version__

    def to_json(self) -> str:
        """One line; the inverse of :meth:`from_json`."""
        return json.dumps({**asdict(self), "label_map": self.label_map.to_dict()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None, source: str) -> Metadata:
        """The metadata that a file holds; ``source`` names it in messages.

        Raises:
            UserError: it holds none, or not what this version writes.
        """
        try:
            stored = json.loads(text or "")
            (height, width), sizes = stored["image_size"], stored["sizes"]
            return cls(
                task=stored["task"],
                image_size=(height, width),
                outputs=tuple(stored["outputs"]),
                finished=stored["finished"],
                label_map=LabelMap.from_dict(stored["label_map"]),
                config=stored["config"],
                sizes=sizes and ((sizes[0][0], sizes[0][1]), (sizes[1][0], sizes[1][1])),
                precision=stored.get("precision"),
                version=stored["version"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{source} is damaged, or was not exported by densevision: it does not say its classes"
            ) from error

    def read_config(self, source: str) -> Config:
        """The configuration that the model was trained with.

        Raises:
            UserError: it is not valid.
        """
        return config_from_dict(self.config, source).config

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the file takes pictures of (height, width)."""
        if self.sizes is None:
            return size == self.image_size
        return all(low <= side <= high for side, (low, high) in zip(size, self.sizes, strict=True))
