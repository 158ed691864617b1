"""What a table of parts says of networks that it was not fitted on, against what they take as a whole.

    python tools/benchmarks/latency_table.py [--output runs/latency_table] [--seconds 200]

Draws 40 networks uniformly from the platform-aware space around MobileNetV3-Small with LR-ASPP
(configs/search/platform_nas_lraspp.yaml, 176x240), measures their parts and each whole network in ONNX Runtime on one
thread, fits one factor on the first 20 and judges the sums on the other 20: mean error and Kendall's tau, each with a
95 % interval from 10,000 draws of those 20 networks with replacement. Every
network's figures are kept at once; called again, the command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import one_thread
from scipy.stats import kendalltau

NETWORKS, FITTED = 40, 20
WANTED_ERROR, WANTED_TAU = 0.08, 0.75


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/latency_table"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other network after so long")
    options = parser.parse_args(argv)
    one_thread()
    file = options.output / "networks.json"
    options.output.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, float]] = json.loads(file.read_text()) if file.exists() else []
    began = time.monotonic()
    while len(found) < NETWORKS and time.monotonic() - began < options.seconds:
        found.append(measure(len(found), options.output))
        file.write_text(json.dumps(found, indent=1) + "\n")
        print(f"network {len(found)} of {NETWORKS}: sum {found[-1]['sum']:.3f} ms, whole {found[-1]['whole']:.3f} ms")
    if len(found) < NETWORKS:
        print(f"{len(found)} of {NETWORKS} networks are measured; call again for the others")
        return 1
    return report(found)


def measure(number: int, output: Path) -> dict[str, float]:
    """The sum of a network's parts and the whole network, in milliseconds."""
    from densevision.config import load_config
    from densevision.config.search_schema import SearchRun
    from densevision.export import optimised
    from densevision.latency import module_run, random_pictures, thread_clock, time_calls, with_statistics
    from densevision.latency_table import LatencyTable
    from densevision.model_backbone import build_architecture
    from densevision.models import build_model, resolved
    from densevision.search.costs import latency_cost
    from densevision.search.samplers import RandomSearch
    from densevision.search.space import BlockSpace, SpaceOptions

    run: Any = load_config("search/platform_nas_lraspp", (), SearchRun).config
    model, (height, width) = resolved(run.model), run.data.image_size
    space = BlockSpace(build_architecture(model.backbone), SpaceOptions(**vars(run.search.space)))
    network = space.decode(RandomSearch(space.sizes, seed=0).ask(NETWORKS)[number])

    def build(architecture: Any) -> Any:
        from densevision.backbones import architecture_to_dict

        model.backbone.arch = architecture_to_dict(architecture)
        return build_model(model, 19, load_weights=False)

    torch.manual_seed(0)
    total = latency_cost(build, (height, width), LatencyTable(output / "table.json"))(network)
    whole = optimised(with_statistics(build(network), (height, width)))
    with tempfile.TemporaryDirectory() as folder:
        pixels = torch.from_numpy(random_pictures((height, width)))
        run_whole = module_run(whole, pixels, Path(folder) / "network.onnx")
        taken = time_calls({"": run_whole}, clock=thread_clock())[""]
    return {"sum": total, "whole": taken.ms, "spread": taken.spread}


def report(found: Sequence[dict[str, float]]) -> int:
    """Print what came out; 1 if an aim is missed."""
    sums, wholes = (np.array([network[name] for network in found]) for name in ("sum", "whole"))
    factor = float(np.exp(np.log(wholes[:FITTED] / sums[:FITTED]).mean()))
    predicted, actual = factor * sums[FITTED:], wholes[FITTED:]
    errors = np.abs(predicted / actual - 1)
    draws = np.random.default_rng(0).integers(0, len(actual), (10_000, len(actual)))
    taus = [kendalltau(predicted[draw], actual[draw]).statistic for draw in draws]
    error, tau = float(errors.mean()), float(kendalltau(predicted, actual).statistic)
    print(f"{NETWORKS} networks of {wholes.min():.2f} to {wholes.max():.2f} ms, factor {factor:.3f} from {FITTED}")
    print(f"without a factor, all {NETWORKS}: mean error {100 * np.abs(sums / wholes - 1).mean():.1f} %")
    for name, value, values, wanted, missed in (
        ("mean error, %", 100 * error, 100 * errors[draws].mean(1), 100 * WANTED_ERROR, error > WANTED_ERROR),
        ("Kendall's tau", tau, np.array(taus), WANTED_TAU, tau < WANTED_TAU),
    ):
        low, high = np.percentile(values, [2.5, 97.5])
        print(f"{name:14} {value:6.3g}  [{low:.3g}, {high:.3g}]   aim {wanted:g}{': MISSED' if missed else ''}")
    return int(error > WANTED_ERROR or tau < WANTED_TAU)


if __name__ == "__main__":
    sys.exit(main())
