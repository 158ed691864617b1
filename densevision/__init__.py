"""densevision: detection and segmentation with mobile networks.

``create_model`` builds a plain ``nn.Module`` from a configuration, ``load`` a checkpoint for prediction. Both are
imported when first used, so that ``import densevision`` stays light.
"""

from __future__ import annotations

import os
from typing import Any

# albumentations asks a server for its newest version when imported; nothing here may use the network unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "load"]

_HOME = {"create_model": "densevision.models", "load": "densevision.inference"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'densevision' has no attribute '{name}'")
