"""What a supernet takes over the one network that it masks: time of a training step, and memory.

    python tools/benchmarks/search_supernet.py [--rounds 5]

widths: MobileNetV3-Small with LR-ASPP at 176x240, four widths of every group of layers. kinds: FBNetV2-P's space
(configs/search/dmasking_fbnetv2.yaml), eight kinds of every block, each with weights of its own, at 96x96. Beside them
stands the widest network alone, which either is built around. Time is the processor's, one thread, in turns. Memory is
counted, not sampled: parameters, and the tensors that a forward pass keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from rounds import interleaved, one_thread, report
from torch import nn

BATCH = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    one_thread()
    torch.manual_seed(0)
    for name, space, build, size in (widths(), kinds()):
        compare(name, space, build, size, options.rounds)
    return 0


def widths() -> Any:
    """The space of widths alone."""
    from densevision.backbones import BACKBONES
    from densevision.search.mask_space import MaskSpace

    seed = BACKBONES["mobilenet_v3_small"](output_stride=16)
    return "widths", MaskSpace(seed, widths=(0.25, 0.5, 0.75, 1.0)), builder("lraspp", 19), (176, 240)


def kinds() -> Any:
    """The space of the configuration."""
    from itertools import product

    from densevision.config import load_config
    from densevision.config.search_schema import SearchRun
    from densevision.model_backbone import build_architecture
    from densevision.search.mask_space import MaskSpace, Operator

    run: Any = load_config("search/dmasking_fbnetv2", schema=SearchRun).config
    options = run.search.supernet
    operators = [Operator(*kind) for kind in product(options.kernels, options.squeeze, options.acts)]
    seed = build_architecture(run.model.backbone)
    space = MaskSpace(seed, options.widths, options.expansions, operators, options.skip, options.strides, options.step)
    return "kinds", space, builder("classifier", 1000), (96, 96)


def builder(head: str, classes: int) -> Callable[[Any], Any]:
    from densevision.backbones import architecture_to_dict
    from densevision.config.schema import Config
    from densevision.models import build_model

    def build(architecture: Any) -> Any:
        config = Config()
        config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), head
        return build_model(config.model, classes)

    return build


def compare(name: str, space: Any, build: Callable[[Any], Any], size: tuple[int, int], rounds: int) -> None:
    """Print time and memory of the supernet and of the widest network."""
    from densevision.search.supernet import Supernet

    plain, net = build(space.widest), Supernet(build, space, size)
    images = torch.rand(BATCH, 3, *size) * 255

    def step(model: nn.Module, choices: bool = False) -> Callable[[], object]:
        def run() -> None:
            with torch.set_grad_enabled(choices):
                gates = net.sample(5.0)
            net.set_gates(gates)
            model(images).square().mean().backward()

        return run

    steps = {
        "widest network": (plain, step(plain)),
        "supernet, a step of the weights": (net.model, step(net.model)),
        "supernet, a step of the choices": (net.model, step(net.model, choices=True)),
    }
    networks = math.prod(space.decisions.values())
    print(
        f"\n{name}: {len(space.decisions)} decisions, {networks:.1e} networks, {BATCH} pictures of {size[0]}x{size[1]}"
    )
    memory = {label: megabytes(*parts) for label, parts in steps.items()}
    report(interleaved({label: run for label, (_, run) in steps.items()}, rounds), "widest network", {})
    one = memory.pop("widest network")
    for label, found in memory.items():
        for what, before, after in zip(("parameters", "kept for the backward pass"), one, found, strict=True):
            print(f"{label}, {what}: {before:.1f} -> {after:.1f} MB, {after / before:.2f} times as much")


def megabytes(model: nn.Module, step: Callable[[], object]) -> tuple[float, float]:
    """Of a network's parameters, and of all else that is kept between the passes; what shares memory counts once."""
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    kept: dict[int, int] = {}
    held = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        held.append(storage)  # an address is given again to another tensor where this one is freed
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(weights.values()) / 1e6, sum(kept[address] for address in kept.keys() - weights.keys()) / 1e6


if __name__ == "__main__":
    sys.exit(main())
