"""Packaging. Lower bounds come from constraints.txt: the versions that the test suite was run with."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
TESTED = dict(re.findall(r"^([\w-]+)==(\S+)$", (HERE / "constraints.txt").read_text(), re.MULTILINE))
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "densevision/__init__.py").read_text())


def at_least(*names: str) -> list[str]:
    return [f"{name}>={TESTED[name]}" for name in names]


FORMATS = {
    "onnx": at_least("onnx", "onnxruntime", "onnxscript"),
    "openvino": at_least("openvino"),
    "executorch": at_least("executorch"),
    "litert": at_least("litert-torch"),
}
EXPORT = [requirement for requirements in FORMATS.values() for requirement in requirements]
DEV = at_least("cityscapesscripts", "mypy", "pytest", "pytest-xdist", "ruff", "timm")

setup(
    name="densevision",
    version=VERSION.group(1),
    description="Detection and segmentation with mobile networks: train, search, compare and ship them",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["densevision*", "datamodules*"]), "densevision.configs"],
    package_dir={"densevision.configs": "configs"},
    package_data={"densevision": ["py.typed", "compare/style.css"], "densevision.configs": ["*.yaml", "*/*.yaml"]},
    install_requires=at_least(
        "albumentations",
        "hotcoco",
        "lightning",
        "matplotlib",
        "numpy",
        "omegaconf",
        "opencv-python-headless",
        "pillow",
        "pycocotools",
        "rich",
        "simplejpeg",
        "torch",
        "torchmetrics",
        "torchvision",
        "wandb",
        "zstandard",
    ),
    extras_require={**FORMATS, "export": EXPORT, "dev": [*DEV, *EXPORT]},
    entry_points={"console_scripts": ["densevision = densevision.cli:main"]},
)
