"""Everything between files on disk and a batch: one module a format."""

from datamodules.base import DataModule
from datamodules.cityscapes import CityscapesDataModule
from datamodules.class_folders import ClassFoldersDataModule, ImageNetDataModule
from datamodules.coco import CocoDataModule
from datamodules.folders import FoldersDataModule
from datamodules.voc import VocDataModule, VocMasksDataModule
from datamodules.yolo import YoloDataModule

# the formats by the task that they hold labels for; voc has both masks and boxes
TASK_DATAMODULES: dict[str, dict[str, type[DataModule]]] = {
    "segmentation": {
        "cityscapes": CityscapesDataModule,
        "folders": FoldersDataModule,
        "voc": VocMasksDataModule,
    },
    "detection": {
        "coco": CocoDataModule,
        "voc": VocDataModule,
        "yolo": YoloDataModule,
    },
    "classification": {
        "class_folders": ClassFoldersDataModule,
        "imagenet": ImageNetDataModule,
    },
}
# all of them, voc with its boxes
DATAMODULES = {name: module for modules in TASK_DATAMODULES.values() for name, module in modules.items()}
