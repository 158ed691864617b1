"""Everything between files on disk and a batch: one module a format."""

from datamodules.base import DataModule
from datamodules.cityscapes import CityscapesDataModule
from datamodules.coco import CocoDataModule

DATAMODULES: dict[str, type[DataModule]] = {"cityscapes": CityscapesDataModule, "coco": CocoDataModule}
