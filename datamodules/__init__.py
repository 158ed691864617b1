"""Everything between files on disk and a batch: one module a format."""

from datamodules.base import DataModule
from datamodules.cityscapes import CityscapesDataModule

DATAMODULES: dict[str, type[DataModule]] = {"cityscapes": CityscapesDataModule}
