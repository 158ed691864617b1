"""How long a call takes: the one timing protocol, and what runs a network under it.

One thread, one picture. A few calls to warm up, then several passes in which all that is compared takes turns; of each
pass the 10th percentile of the single calls, and of the passes the least. The mean measures the machine's other work,
the minimum a lucky call; over repetitions on a busy machine this figure moved by about 1 %, the median by 2 to 6.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densevision.classification import Classifier
from densevision.complexity import Layer
from densevision.detection.ssdlite import SSDLite
from densevision.export import FORMATS, Runtime, format_named, format_of, open_file, optimised
from densevision.segmentation.segmenter import Segmenter

Network = Segmenter | SSDLite | Classifier
CALLS, PASSES, WARM_UP = 200, 3, 5
PERCENTILE = 10


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call.

    ms: the least of the passes' 10th percentiles. spread: how far apart those are, over ``ms``. calls: of each pass.
    """

    ms: float
    spread: float
    calls: int
    passes: int

    def to_dict(self) -> dict[str, float]:
        """For json."""
        return asdict(self)


def time_calls(
    runs: Mapping[str, Callable[[], object]],
    calls: int = CALLS,
    passes: int = PASSES,
    progress: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time things against each other by the protocol.

    Args:
        runs: what to call, by name; each is to use the threads it shall be measured with.
        calls: single calls of each in a pass.
        progress: told the name of what is timed next.
        clock: the wall's, or :func:`thread_clock`.
    """
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(passes):
        for name, run in runs.items():
            if progress:
                progress(name)
            found[name].append(_percentile(run, calls, clock))
    return {
        name: Latency(1e3 * min(values), (max(values) - min(values)) / min(values), calls, passes)
        for name, values in found.items()
    }


def _percentile(run: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    seconds = []
    for _ in range(calls):
        began = clock()
        run()
        seconds.append(clock() - began)
    return float(np.percentile(seconds, PERCENTILE))


def thread_clock() -> Callable[[], float]:
    """Processor time of this thread, for what computes in it alone: other processes' turns on a busy machine, which
    every call longer than a few milliseconds waits for, do not count. The wall's where the system counts too coarsely.
    """
    return time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else time.perf_counter


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_pictures(image_size: tuple[int, int]) -> np.ndarray:
    """(1, 3, H, W) uint8 noise."""
    return np.random.default_rng(0).integers(0, 256, (1, 3, *image_size), dtype=np.uint8)


@torch.no_grad()
def with_statistics(model: nn.Module, image_size: tuple[int, int], images: Tensor | None = None) -> nn.Module:
    """An untrained network with statistics of normalisation that fit it, in evaluation mode; ``model`` is changed.

    Without, its maps fade to numbers so small that processors compute slowly with them.

    Args:
        model: a network of uint8 pictures.
        image_size: (height, width) of the noise that it is shown.
        images: (B, 3, H, W) uint8, to be shown instead.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if images is None:
        images = torch.from_numpy(random_pictures(image_size))
    model.train()(torch.cat([images, images.flip(3)]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def network_run(model: nn.Module, image_size: tuple[int, int]) -> Callable[[], object]:
    """A call of a network in PyTorch on one picture."""
    images = torch.from_numpy(random_pictures(image_size))

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    return run


def file_run(runtime: Runtime, image_size: tuple[int, int]) -> Callable[[], object]:
    """A call of an exported file on one picture."""
    images = random_pictures(image_size)
    return lambda: runtime(images)


def peak_memory(what: nn.Module | Path, image_size: tuple[int, int], threads: int) -> int | None:
    """Bytes that opening and running a network or an exported file adds to a process; None where nothing tells.

    A process of its own runs it three times; what its libraries take before is left out.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_memory, args=(what, image_size, threads, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _measure_memory(what: nn.Module | Path, image_size: tuple[int, int], threads: int, sender: Any) -> None:
    torch.set_num_threads(threads)
    if isinstance(what, Path):
        import_module(FORMATS[format_of(what)].module)
    # a tiny call first, so that what every call of PyTorch needs once is not counted
    torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))
    before = _resident("VmRSS")
    if isinstance(what, Path):
        run = file_run(open_file(what, threads), image_size)
    else:
        weights = sum(value.numel() * value.element_size() for value in what.state_dict().values())
        before = None if before is None else before - weights
        run = network_run(what, image_size)
    for _ in range(3):
        run()
    peak = _resident("VmHWM")
    sender.send(None if before is None or peak is None else peak - before)


def _resident(name: str) -> int | None:
    """A line of the kernel's account of this process, in bytes; Linux has it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def layer_latencies(
    model: Network,
    rows: Sequence[Layer],
    image_size: tuple[int, int],
    calls: int = CALLS,
) -> dict[str, Latency]:
    """What each row of a network's table costs alone, and under "" the network, in ONNX Runtime on one thread.

    Args:
        rows: of the model at that size, see :func:`densevision.complexity.layers`.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    model = optimised(model)
    pixels = torch.from_numpy(random_pictures(image_size))
    with tempfile.TemporaryDirectory() as folder:
        runs = {"": module_run(model, pixels, Path(folder) / "network.onnx")}
        for number, row in enumerate(rows):
            module, (height, width, channels) = model.get_submodule(row.name), row.input
            shape = (1, channels) if isinstance(module, nn.Linear) else (1, channels, height, width)
            example = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
            runs[row.name] = module_run(module, example, Path(folder) / f"{number}.onnx")
        return time_calls(runs, calls)


def module_run(module: nn.Module, example: Tensor | Sequence[Tensor], path: Path) -> Callable[[], object]:
    """A call of a network or a part of one in ONNX Runtime on one thread.

    Args:
        example: its input, or several. path: the file to write for it.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    format_named("onnx")
    import onnxruntime

    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    write_module(module, inputs, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {given.name: value.numpy() for given, value in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, feeds)


def write_module(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """A network or a part of one as an ONNX file of fixed sizes.

    The tracing exporter writes what runs as quickly as what ``densevision.export`` writes, in a thirtieth of the time,
    and parts are written by the hundred.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), tuple(inputs), str(path), dynamo=False, opset_version=18)
