"""Everything between files on disk and a batch: one module a format."""

from datamodules.base import DataModule
from datamodules.cityscapes import CityscapesDataModule
from datamodules.coco import CocoDataModule
from datamodules.folders import FoldersDataModule
from datamodules.yolo import YoloDataModule

DATAMODULES: dict[str, type[DataModule]] = {
    "cityscapes": CityscapesDataModule,
    "coco": CocoDataModule,
    "folders": FoldersDataModule,
    "yolo": YoloDataModule,
}
