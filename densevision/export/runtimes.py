"""How each file format is written, and how its runtime opens and runs it.

All are written from one ``torch.export`` program, and all run on (B, 3, H, W) uint8 pictures.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.export import ExportedProgram

from densevision.export.counting import int8_madds_executorch, int8_madds_onnx
from densevision.export.graphs import halve, separate, unsign
from densevision.export.metadata import KEY, Metadata

_FILE = f"{KEY}.json"  # of the metadata, in formats that hold files
_SUM = "crc32"


class Runtime:
    """An exported file, opened; calling it computes.

    Attributes:
        suffix: of the format's files. packages: what writing and running need. extra: what installs them. module: the
            module that runs files. dynamic: whether a file can take pictures of several sizes. precisions: beside
            float32, ``int8`` and ``fp16`` (of the weights alone). metadata: of the file.
    """

    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    module: ClassVar[str] = "torch"
    dynamic: ClassVar[bool] = False
    precisions: ClassVar[tuple[str, ...]] = ()
    metadata: Metadata

    @classmethod
    def write(cls, program: ExportedProgram, path: Path, metadata: Metadata) -> None:
        """Write ``path``, and files that belong to it beside it; a program for int8 is rounded already."""
        raise NotImplementedError

    @classmethod
    def int8_madds(cls, path: Path) -> int:
        """Multiply-adds a picture that the runtime does in int8; of formats with that precision."""
        raise NotImplementedError

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open a file; ``threads`` None leaves their number to the runtime."""
        raise NotImplementedError

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """(B, 3, H, W) uint8 -> the outputs by name."""
        raise NotImplementedError


class TorchExport(Runtime):
    """``torch.export``'s own archive; runs in PyTorch."""

    suffix = ".pt2"
    dynamic = True

    @classmethod
    def write(cls, program: ExportedProgram, path: Path, metadata: Metadata) -> None:
        torch.export.save(program, path, extra_files={_FILE: metadata.to_json()})

    def __init__(self, path: Path, threads: int | None = None) -> None:
        held = {_FILE: ""}
        self._module = torch.export.load(path, extra_files=held).module()
        self.metadata = Metadata.from_json(held[_FILE], str(path))

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._module(torch.from_numpy(images))
        return {name: value.numpy() for name, value in zip(self.metadata.outputs, outputs, strict=True)}


class Onnx(Runtime):
    """ONNX, run by ONNX Runtime."""

    suffix = ".onnx"
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"
    module = "onnxruntime"
    dynamic = True
    precisions = ("int8", "fp16")

    @classmethod
    def write(cls, program: ExportedProgram, path: Path, metadata: Metadata) -> None:
        exported = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False)
        assert exported is not None
        graph = exported.model.graph
        for output, name in zip(graph.outputs, metadata.outputs, strict=True):
            output.name = name
        for node in graph:
            node.metadata_props.clear()  # this machine's paths, and a third of a small file
        if metadata.precision == "int8":
            unsign(graph)
        elif metadata.precision == "fp16":
            halve(graph)
        exported.model.metadata_props[KEY] = metadata.to_json()
        exported.save(path, external_data=False)

    @classmethod
    def int8_madds(cls, path: Path) -> int:
        return int8_madds_onnx(path)

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        held = self._session.get_modelmeta().custom_metadata_map
        self.metadata = Metadata.from_json(held.get(KEY), str(path))

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._session.run(None, {self._session.get_inputs()[0].name: images})
        return dict(zip(self.metadata.outputs, outputs, strict=True))


class OpenVino(Runtime):
    """OpenVINO's IR: the network in ``NAME.xml``, its weights in ``NAME.bin``."""

    suffix = ".xml"
    packages = ("openvino",)
    extra = "openvino"
    module = "openvino"
    dynamic = True
    precisions = ("fp16",)

    @classmethod
    def write(cls, program: ExportedProgram, path: Path, metadata: Metadata) -> None:
        import openvino

        model = openvino.convert_model(program)
        height, width = metadata.sizes or tuple((side, side) for side in metadata.image_size)
        model.reshape([1, 3, height, width])
        for output, name in zip(model.outputs, metadata.outputs, strict=True):
            output.get_tensor().set_names({name})
        model.set_rt_info(metadata.to_json(), [KEY])
        openvino.save_model(model, path, compress_to_fp16=metadata.precision == "fp16")

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        held = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        self.metadata = Metadata.from_json(held, str(path))
        # without the hint it computes in bfloat16 where the processor has it
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model = core.compile_model(model, "CPU", settings)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._model(images)
        return {name: outputs[number] for number, name in enumerate(self.metadata.outputs)}


class ExecuTorch(Runtime):
    """ExecuTorch's program, its convolutions run by XNNPACK."""

    suffix = ".pte"
    packages = ("executorch",)
    extra = "executorch"
    module = "executorch.runtime"
    precisions = ("int8",)

    @classmethod
    def write(cls, program: ExportedProgram, path: Path, metadata: Metadata) -> None:
        separate(program)
        with _quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            with open(path, "wb") as file:
                edge.to_executorch().write_to_file(file)
        _append(path, metadata)

    @classmethod
    def int8_madds(cls, path: Path) -> int:
        with _quiet():
            return int8_madds_executorch(path)

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.metadata = _appended(path)
        with _quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime as Loader

            if threads is not None:
                portable_lib._unsafe_reset_threadpool(threads)  # of the process; unsafe while a program runs
            self._method = Loader.get().load_program(path).load_method("forward")

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = self._method.execute([torch.from_numpy(images)])
        return {name: value.numpy() for name, value in zip(self.metadata.outputs, outputs, strict=True)}


class LiteRT(Runtime):
    """LiteRT, the former TensorFlow Lite."""

    suffix = ".tflite"
    packages = ("litert_torch", "ai_edge_litert")
    extra = "litert"
    module = "ai_edge_litert.interpreter"

    @classmethod
    def write(cls, program: ExportedProgram, path: Path, metadata: Metadata) -> None:
        with _quiet():
            import litert_torch

            example = torch.zeros(1, 3, *metadata.image_size, dtype=torch.uint8)
            litert_torch.convert(program.module(), (example,)).export(str(path))
        _append(path, metadata)

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.metadata = _appended(path)
        with _quiet():
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        interpreter = self._interpreter
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        outputs = [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]
        return dict(zip(self.metadata.outputs, outputs, strict=True))


def _append(path: Path, metadata: Metadata) -> None:
    """Put the metadata behind the network, as TensorFlow Lite does with its files, and the network's checksum."""
    network = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_FILE, metadata.to_json())
        archive.writestr(_SUM, f"{len(network)} {zlib.crc32(network)}")


def _appended(path: Path) -> Metadata:
    """What :func:`_append` wrote. The checksum is compared: these runtimes end the process over a damaged network.

    Raises:
        UserError: there is nothing appended. ValueError: the network is not what was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            held, written = archive.read(_FILE).decode(), archive.read(_SUM).decode().split()
    except (zipfile.BadZipFile, KeyError):
        return Metadata.from_json(None, str(path))
    network = path.read_bytes()[: int(written[0])]
    if zlib.crc32(network) != int(written[1]):
        raise ValueError("a checksum in it is wrong")
    return Metadata.from_json(held, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converters' progress on standard output and their warnings about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
