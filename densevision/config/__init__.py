"""Configuration: the schema of all keys, the loader, and looking up names."""

from densevision.config.loader import (
    LoadedConfig,
    config_from_dict,
    config_to_dict,
    find_config,
    flat_items,
    load_config,
)
from densevision.config.lookup import lookup
from densevision.config.schema import Config

__all__ = [
    "Config",
    "LoadedConfig",
    "config_from_dict",
    "config_to_dict",
    "find_config",
    "flat_items",
    "load_config",
    "lookup",
]
