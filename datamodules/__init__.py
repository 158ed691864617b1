"""Everything between files on disk and a batch: one module a format."""

from datamodules.base import DataModule
from datamodules.cityscapes import CityscapesDataModule
from datamodules.class_folders import ClassFoldersDataModule, ImageNetDataModule
from datamodules.coco import CocoDataModule
from datamodules.folders import FoldersDataModule
from datamodules.voc import VocDataModule, VocMasksDataModule
from datamodules.yolo import YoloDataModule

DATAMODULES: dict[str, type[DataModule]] = {
    "cityscapes": CityscapesDataModule,
    "class_folders": ClassFoldersDataModule,
    "coco": CocoDataModule,
    "folders": FoldersDataModule,
    "imagenet": ImageNetDataModule,
    "voc": VocDataModule,
    "yolo": YoloDataModule,
}
# formats that hold both boxes and masks: what reads the masks
MASK_DATAMODULES: dict[str, type[DataModule]] = {"voc": VocMasksDataModule}
