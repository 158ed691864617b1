"""An architecture search from its configuration to its run directory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from densevision import experiment
from densevision.backbones import Architecture, architecture_to_dict, write_architecture
from densevision.config import LoadedConfig, config_to_dict
from densevision.config.search_schema import SearchConfig, SearchRun
from densevision.errors import UserError
from densevision.io import atomic_write, make_folder
from densevision.latency_table import LatencyTable, write_table
from densevision.model_backbone import build_architecture
from densevision.model_heads import check_head
from densevision.models import build_model, resolved
from densevision.search.controller import Controller
from densevision.search.costs import Cost, absolute_target, latency_cost, madds_cost, params_cost
from densevision.search.executors import in_processes, in_slurm
from densevision.search.history import Entry, History, draw_pareto, pareto_front
from densevision.search.netadapt import netadapt
from densevision.search.platform_aware import Goal, platform_search
from densevision.search.samplers import Evolution, RandomSearch, Sampler
from densevision.search.space import BlockSpace, SpaceOptions
from densevision.search.trials import Job, TrialStore, read_trial, run_trial
from densevision.search_supernet import search_supernet
from densevision.search_training import ARCH, train_found
from densevision.search_trial import OBJECTIVES, TaskTrial, trial_setting

# in a process of its own, so that the trials of a machine with several GPUs do not meet
_COMMAND = (sys.executable, "-c", "import sys; from densevision.cli import run; sys.exit(run('search', sys.argv[1:]))")


def search(loaded: LoadedConfig, console: Console) -> dict[str, Any]:
    """Search as configured, going on where the run directory says so, then train what was found.

    Leaves ``arch.yaml``, ``history.jsonl``, ``pareto.png``, ``pareto/`` with the table of every network of the front,
    ``trials/``, ``latency_table.json`` where latencies were summed, and, unless ``search.retrain=none``, all files of a
    training.

    Returns:
        ``run_dir``, ``score``, ``cost``, ``seed_score``, ``seed_cost``, ``unit``, ``target``, ``trials`` (made by this
        call) and ``training`` (its summary or None).

    Raises:
        UserError: something about the configuration, the data or a trial is wrong.
    """
    run = loaded.config
    assert isinstance(run, SearchRun)
    run_dir = loaded.run_dir
    with loaded.blaming_origin():
        if run.search.retrain == "inherit" and run.search.method != "netadapt":
            raise UserError("only netadapt leaves weights to begin with; use scratch or none", key="search.retrain")
        check_head(run.task, run.model)
        run.model = resolved(run.model)
        seed = build_architecture(run.model.backbone)
        setting = trial_setting(run)
        datamodule = experiment.build_datamodule(run)
        datamodule.setup("fit")  # whose files say the classes
        table = latency_table(run.search, run_dir)
        cost = build_cost(run, datamodule.label_map.num_classes, table)
        target = absolute_target(run.search.target, cost(seed))
        _begin_run_directory(run_dir, OmegaConf.to_yaml(OmegaConf.create(config_to_dict(run))))
        store = TrialStore(run_dir / "trials", setting, executor(run.search, setting))
        history = History(run_dir / "history.jsonl")
        _say(
            console, f"{run.search.method} from {seed.family}, {cost(seed):.4g} {cost.unit}, to {target:.4g}; {run_dir}"
        )
        if table:
            whose = "this machine" if table.own else table.machine.get("processor", "unknown")
            _say(console, f"latencies are of {whose}, {len(table.known)} parts known; {table.file}")
        if run.search.method == "dmasking":
            architecture, key, run = _search_supernet(
                run, setting, seed, datamodule.label_map.num_classes, cost, target, run_dir, store, history, console
            )
        else:
            architecture, key = _search(run, seed, cost, target, store, history, console)
        if table:
            write_table(run_dir / "latency_table.json", table.machine, table.used)
        _write_network(store, key, run_dir / ARCH)
        _write_front(run_dir, history, store)
    objective = OBJECTIVES["loss"] if run.search.objective == "loss" else experiment.TASKS[run.task].monitor  # type: ignore[attr-defined]
    draw_pareto(history.entries, target, cost.unit, objective, loaded.name, run_dir / "pareto.png")
    chosen = next(entry for entry in history.entries if entry.trial == key)
    result = {
        "run_dir": str(run_dir),
        "score": chosen.score,
        "cost": chosen.cost,
        "seed_score": history.entries[0].score,
        "seed_cost": history.entries[0].cost,
        "unit": cost.unit,
        "target": target,
        "trials": store.made,
        "training": None,
    }
    if run.search.retrain != "none":
        result["training"] = train_found(loaded, run, architecture, store, key, console)
    return result


def latency_table(search: SearchConfig, run_dir: Path) -> LatencyTable | None:
    """The table that ``search.cost=latency`` sums; None for other costs.

    Raises:
        UserError: a file that is no table, or one for another cost.
    """
    if search.cost == "latency":
        file = Path(search.table).expanduser() if search.table else None
        return LatencyTable(file, run_dir / "parts" if search.write_parts else None)
    for key in ("table", "write_parts"):
        if getattr(search, key):
            raise UserError(f"only search.cost=latency knows it, and search.cost is {search.cost}", f"search.{key}")
    return None


def build_cost(run: SearchRun, num_classes: int, table: LatencyTable | None) -> Cost:
    """The cost that ``search.cost`` names, of the whole model.

    Raises:
        UserError: ``data.image_size`` is not given.
    """
    if run.data.image_size is None:
        raise UserError("a network's cost is that of a picture of one size; give data.image_size", "data.image_size")
    model = deepcopy(run.model)

    def build(architecture: Architecture) -> Any:
        model.backbone.arch = architecture_to_dict(architecture)
        return build_model(model, num_classes, load_weights=False)

    height, width = run.data.image_size
    if table:
        return latency_cost(build, (height, width), table)
    return {"madds": madds_cost, "params": params_cost}[run.search.cost](build, (height, width))


def executor(search: SearchConfig, setting: dict[str, Any]) -> Any:
    """What makes the trials: this process one after another, others at once, or SLURM."""
    command = (*_COMMAND, "--trial")
    if search.launcher == "slurm":
        return lambda files: in_slurm(files, command, search.workers, search.slurm)
    if search.workers > 1:
        return lambda files: in_processes(files, command, search.workers)
    trial = TaskTrial(setting)

    def one_by_one(files: Sequence[Path]) -> None:
        for file in files:
            run_trial(file, lambda _: trial)

    return one_by_one


def _search(
    run: SearchRun, seed: Architecture, cost: Cost, target: float, store: TrialStore, history: History, console: Console
) -> tuple[Architecture, str]:
    options = run.search

    def report(line: str) -> None:
        _say(console, line)

    if options.method == "netadapt":
        return netadapt(
            seed,
            cost,
            target,
            store,
            history,
            delta=options.delta,
            steps=options.steps,
            seed_steps=options.seed_steps,
            random_seed=run.seed,
            report=report,
        )
    if run.model.pretrained or run.model.backbone.pretrained:
        raise UserError(
            "the networks of a space are no published one and all begin at random; leave pretrained weights out",
            key="model.pretrained" if run.model.pretrained else "model.backbone.pretrained",
        )
    space = BlockSpace(seed, SpaceOptions(**vars(options.space)))
    if not space.has_choices():
        raise UserError("there is one single network to choose from; give more values", key="search.space")
    samplers: dict[str, Sampler] = {
        "controller": Controller(space.sizes, run.seed, lr=options.controller_lr, entropy=options.entropy),
        "evolution": Evolution(space.sizes, run.seed, options.population, options.tournament),
        "random": RandomSearch(space.sizes, run.seed),
    }
    return platform_search(
        space,
        samplers[options.method],
        cost,
        Goal(target, options.alpha, options.beta, options.score_floor),
        store,
        history,
        samples=options.samples,
        batch=options.batch,
        steps=options.steps,
        random_seed=run.seed,
        report=report,
    )


def _search_supernet(
    run: SearchRun,
    setting: dict[str, Any],
    seed: Architecture,
    num_classes: int,
    cost: Cost,
    target: float,
    run_dir: Path,
    store: TrialStore,
    history: History,
    console: Console,
) -> tuple[Architecture, str, SearchRun]:
    """Choose in a supernet, then judge what was chosen and the seed by trials of their own.

    Returns:
        the network, its trial's key, and the configuration with the pictures' size that was chosen.
    """
    found, size = search_supernet(run, setting, seed, target, run_dir, lambda line: _say(console, line))
    own, own_store, own_cost = run, store, cost
    if size != list(run.data.image_size):
        _say(console, f"pictures of {size[0]}x{size[1]} were chosen: train with data.image_size={size}")
        own = deepcopy(run)
        own.data.image_size, own.data.crop_size = size, run.data.crop_size and size
        own_setting = trial_setting(own)
        own_store = TrialStore(store.folder, own_setting, executor(own.search, own_setting))
        own_cost = build_cost(own, num_classes, None)
    jobs = [Job(network, run.search.steps, run.seed) for network in (seed, found)]
    scores = store.run(jobs) if own is run else [*store.run(jobs[:1]), *own_store.run(jobs[1:])]
    store.made += 0 if own is run else own_store.made
    key = own_store.key(jobs[1])
    history.add(
        [
            Entry(0, 0, "seed", scores[0], cost(seed), False, store.key(jobs[0])),
            Entry(1, 1, "found", scores[1], own_cost(found), True, key),
        ]
    )
    return found, key, own


def _begin_run_directory(run_dir: Path, text: str) -> None:
    """Note all values, and remove what a search with other ones left; its trials stay, for whoever asks for them."""
    make_folder(run_dir)
    file = run_dir / "search.yaml"
    if not file.exists() or file.read_text(encoding="utf-8", errors="replace") != text:
        for name in (ARCH, "history.jsonl", "pareto.png", "latency_table.json"):
            (run_dir / name).unlink(missing_ok=True)
        _clear_front(run_dir)
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8")


def _clear_front(run_dir: Path) -> None:
    for file in (run_dir / "pareto").glob("[0-9]*.yaml"):
        file.unlink()


def _write_front(run_dir: Path, history: History, store: TrialStore) -> None:
    """The tables of the front, the cheapest first."""
    _clear_front(run_dir)
    for number, entry in enumerate(pareto_front(history.entries)):
        _write_network(store, entry.trial, run_dir / "pareto" / f"{number:03d}.yaml")


def _write_network(store: TrialStore, key: str, file: Path) -> None:
    """The table of a trial's network, with the size of the pictures that it was judged on."""
    architecture, trial = read_trial(store.folder / f"{key}.json")
    write_architecture(
        architecture, file, f"judged with data.image_size={trial['setting']['config']['data']['image_size']}"
    )


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
