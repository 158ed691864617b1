"""YAML files and overrides -> one typed Config that knows where each value came from."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import densevision
from densevision.config.lookup import suggestion, unknown_name
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.paths import is_file, is_folder

_PACKAGE = Path(densevision.__file__).parent
# beside the package in a checkout, inside it when installed
CONFIG_DIRS = (_PACKAGE.parent / "configs", _PACKAGE / "configs")
_MAX_EXTENDS = 2
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


@dataclass
class LoadedConfig:
    """A configuration and where it comes from.

    config: the merged values. name: the leaf file's stem. origins: dotted key -> the file or override that
    set it; keys that nobody set have none.
    """

    config: Config
    name: str
    origins: dict[str, str]

    @property
    def run_dir(self) -> Path:
        """``output_dir``, or ``runs/<name>``; under a W&B agent ``runs/sweep_<sweep>/<run>``."""
        sweep, run = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
        name = f"sweep_{sweep}/{run}" if sweep and run else self.name
        return Path(self.config.output_dir or Path("runs") / name)

    @contextmanager
    def blaming_origin(self) -> Iterator[None]:
        """Put the file or override that set ``error.key`` before the sentence of a UserError raised inside."""
        try:
            yield
        except UserError as error:
            if error.key is None:
                raise
            origin = self.origins.get(error.key)
            raise UserError(f"{origin}: {error.key}: {error}" if origin else f"{error.key}: {error}") from error


def load_config(path: str | Path, overrides: Sequence[str] = (), schema: type[Config] = Config) -> LoadedConfig:
    """Read a configuration file, the files it extends, and ``key.path=value`` overrides on top.

    Args:
        path: a YAML file, or the name of one of the project's configs without ``.yaml``.
        overrides: for example ``["data.batch_size=4", "trainer.max_steps=200"]``.
        schema: the keys that there are; a search has more than a training.

    Raises:
        UserError: no such file, unknown key, wrong type or value; names the file or override and what is right.
    """
    file = find_config(path)
    layers = [*_file_layers(file, depth=0), *(_override_layer(text) for text in overrides)]
    return _merge(layers, file.stem, schema)


def config_from_dict(values: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> LoadedConfig:
    """The configuration stored in a checkpoint (``source`` names it), with overrides on top."""
    return _merge([(source, values), *(_override_layer(text) for text in overrides)], Path(source).stem)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers; what checkpoints and ``config.yaml`` hold."""
    return dataclasses.asdict(config)


def flat_items(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat_items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def find_config(path: str | Path) -> Path:
    """The file that ``path`` names: as it stands, or among the project's configs, ``.yaml`` being optional."""
    return _find(path, [Path(), *CONFIG_DIRS])


def _find(path: str | Path, folders: Sequence[Path]) -> Path:
    path = Path(path)
    candidates = [path] if path.suffix in (".yaml", ".yml") else [path, path.with_name(path.name + ".yaml")]
    for folder in folders:
        for candidate in candidates:
            if is_file(folder / candidate):
                return folder / candidate
    known = sorted({str(file.relative_to(d).with_suffix("")) for d in CONFIG_DIRS for file in d.rglob("*.yaml")})
    near = suggestion(str(path.with_suffix("") if path.suffix == ".yaml" else path).removeprefix("configs/"), known)
    looked = ", ".join(str(folder.resolve()) for folder in folders if is_folder(folder))
    raise UserError(f"no configuration file '{path}'{near} (looked in {looked})")


def _file_layers(file: Path, depth: int) -> list[tuple[str, dict[str, Any]]]:
    """(source, values) of the file and all that it extends, the most basic first."""
    if depth > _MAX_EXTENDS:
        raise UserError(f"{file}: 'extends' goes deeper than {_MAX_EXTENDS} levels; put the values into one file")
    values = read_yaml(file)
    parents = values.pop("extends", [])
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"{file}: extends: expected a list of files such as [base/segmentation.yaml]")
    layers: list[tuple[str, dict[str, Any]]] = []
    for parent in parents:
        layers += _file_layers(_find(parent, [file.parent, *CONFIG_DIRS]), depth + 1)
    return [*layers, (str(file), values)]


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; 1e-3 is a number.

    Raises:
        UserError: it is none, or a list.
    """
    try:
        # OmegaConf's reader, unlike YAML 1.1, knows 1e-3 as a number
        values = OmegaConf.to_container(OmegaConf.load(file))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected keys and values such as 'seed: 0', got a list")
    return {str(key): value for key, value in values.items()}


def _override_layer(text: str) -> tuple[str, dict[str, Any]]:
    source = f"override '{text}'"
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"{source}: expected key.path=value, for example data.batch_size=4")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{source}: the value cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(values, dict)
    return source, {str(k): value for k, value in values.items()}


def _merge(layers: Sequence[tuple[str, dict[str, Any]]], name: str, schema: type[Config] = Config) -> LoadedConfig:
    merged = OmegaConf.structured(schema)
    origins: dict[str, str] = {}
    for source, values in layers:
        for key in _checked_keys(values, schema, source):
            origins[key] = source
        try:
            merged = OmegaConf.merge(merged, values)
        except OmegaConfBaseException as error:
            raise UserError(f"{source}: {_reason(error)}") from error
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        sources = ", ".join(source for source, _ in layers)
        if isinstance(error, MissingMandatoryValue):
            raise UserError(f"{sources}: {error.full_key} is required and no file or override gives it") from error
        raise UserError(f"{sources}: {_reason(error)}") from error
    assert isinstance(config, Config)
    loaded = LoadedConfig(config, name, origins)
    with loaded.blaming_origin():
        _check_values(config, "")
    if config.model.backbone.reduced_tail is True:
        # classification has no cut of its own
        config.model.backbone.reduced_tail = "detection" if config.task == "detection" else "segmentation"
    return loaded


def _reason(error: OmegaConfBaseException) -> str:
    sentence = str(error).splitlines()[0]
    hint = get_type_hints(error.object_type).get(error.key) if dataclasses.is_dataclass(error.object_type) else None
    if "is not a ListConfig" in sentence or "with ListConfig" in sentence:
        sentence = "expected a list such as [a, b]"
    elif hint is not None:
        kinds = [_KINDS[kind] for kind in get_args(hint) or (hint,) if kind in _KINDS]
        sentence = f"expected {' or '.join(kinds)}, got {error.value!r}" if kinds else sentence
    return f"{error.full_key}: {sentence}" if error.full_key else sentence


def _checked_keys(values: dict[str, Any], schema: type, source: str, prefix: str = "") -> Iterator[str]:
    """All dotted leaf keys of ``values``, each known to the schema."""
    hints = get_type_hints(schema)
    for key, value in values.items():
        if key not in hints:
            where = f"{source}: {prefix}{key}" if prefix else source
            raise UserError(f"{where}: {unknown_name('key', str(key), hints)}")
        section = hints[key]
        if dataclasses.is_dataclass(section):
            if not isinstance(value, dict):
                keys = ", ".join(get_type_hints(section))
                raise UserError(f"{source}: {prefix}{key}: expected keys below it ({keys}), got {value!r}")
            assert isinstance(section, type)
            yield from _checked_keys(value, section, source, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _check_values(section: Any, prefix: str) -> None:
    """Choices, ranges and sizes, which the types alone do not say."""
    for field in dataclasses.fields(section):
        key, value, rule = f"{prefix}{field.name}", getattr(section, field.name), field.metadata
        if dataclasses.is_dataclass(value):
            _check_values(value, f"{key}.")
        elif "choices" in rule and value not in rule["choices"]:
            choices = ["null" if choice is None else str(choice) for choice in rule["choices"]]
            raise UserError(f"'{value}' is none of {', '.join(choices)}{suggestion(str(value), choices)}", key)
        elif "range" in rule and value is not None:
            low, high = rule["range"]
            if not low <= value <= high:
                limit = f"at least {low:.12g}" if math.isinf(high) else f"between {low:.12g} and {high:.12g}"
                raise UserError(f"expected a number {limit}, got {value}", key)
        elif "size" in rule and value is not None:
            setattr(section, field.name, _size(value, key))
        elif "pair" in rule and (len(value) != 2 or not 0 < value[0] <= value[1]):
            raise UserError(f"expected two positive numbers [low, high], got {value}", key)
        elif "each" in rule:
            expected, fits, least = rule["each"]
            if len(value) < least:
                raise UserError(f"expected a list of values, each {expected}, got {value}", key)
            for index, item in enumerate(value):
                if not fits(item):
                    raise UserError(f"expected {expected}, got {item}", key)
                if item in value[:index]:
                    raise UserError(f"{item} stands twice in {value}", key)


def _size(value: Any, key: str) -> list[int]:
    numbers = [value, value] if isinstance(value, int) else value
    whole = isinstance(numbers, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    if not whole or len(numbers) != 2 or min(numbers) < 1:
        raise UserError(f"expected [height, width] in pixels or one number for a square, got {value!r}", key)
    return list(numbers)
