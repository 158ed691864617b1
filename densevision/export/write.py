"""From a network to a file that is known to compute the same."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from densevision.config import Config, config_to_dict
from densevision.detection.postprocess import CANDIDATES
from densevision.errors import UserError
from densevision.export.agreement import TOLERANCES, Agreement, Tolerance, compare
from densevision.export.deployed import Deployed
from densevision.export.formats import FORMATS, format_named, format_of
from densevision.export.metadata import Metadata
from densevision.export.optimise import optimised
from densevision.io import make_folder
from densevision.models import build_postprocess
from densevision.structures import LabelMap

Range = tuple[int, int]
LARGEST = 8192  # side of a picture that a file of any size is written for


@dataclass(frozen=True)
class Exported:
    """A file that was written: its path, the files it consists of, what it says, and how it agreed with PyTorch."""

    path: Path
    files: tuple[Path, ...]
    metadata: Metadata
    agreement: Agreement

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.files)


def export_model(
    model: nn.Module,
    config: Config,
    label_map: LabelMap,
    output: Path,
    format_name: str,
    pictures: Sequence[np.ndarray],
    image_size: tuple[int, int],
    finished: bool = False,
    dynamic: bool = False,
    tolerance: Tolerance | None = None,
    precision: str | None = None,
    complete: Callable[[Exported], None] | None = None,
    candidates: int = CANDIDATES,
) -> Exported:
    """Write a network as a file of one format, and compare the file in its runtime with the network in PyTorch.

    The file appears under its name only if they agree.

    Args:
        model: a segmenter, detector or classifier; it is not changed.
        config, label_map: what a checkpoint says of it.
        output: the file; its suffix is the format's.
        format_name: a key of :data:`densevision.export.FORMATS`.
        pictures: to compare on, (H, W, 3) uint8 RGB of any size; at least one.
        image_size: (height, width) of the pictures that the file takes.
        finished: whether the file gives classes, detections or probabilities rather than the raw outputs.
        dynamic: whether it takes other sizes too, as far as the network's own decisions allow.
        tolerance: None for that of the precision.
        precision: None for float32; ``fp16`` stores the weights so; ``int8`` takes a network of
            :func:`densevision.quantize.integer`.
        complete: given the file before it has its name, in a folder of its own; what this writes beside it is moved
            with it, and if this fails, nothing is.
        candidates: of a finished detector, how many of the best pairs of anchor and class enter the suppression.

    Raises:
        UserError: an unknown format, one that is not installed or cannot do what is asked, a network that it cannot
            hold, or a file that disagrees.
    """
    check_request(config.task, output, format_name, finished, dynamic, precision)
    suppression = build_postprocess(config.model.head) if config.task == "detection" else None
    reference = Deployed(copy.deepcopy(model).eval(), image_size, suppression, finished, candidates)
    deployed = Deployed(optimised(model), image_size, suppression, finished, candidates)
    program = export_program(deployed, dynamic)
    metadata = Metadata(
        task=config.task,
        image_size=image_size,
        outputs=deployed.outputs,
        finished=finished,
        label_map=label_map,
        config=config_to_dict(config),
        sizes=_sizes(program) if dynamic else None,
        precision=precision,
    )
    return write_program(program, reference, output, metadata, pictures, tolerance or TOLERANCES[precision], complete)


def check_request(
    task: str, output: Path, format_name: str, finished: bool, dynamic: bool, precision: str | None
) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        UserError: an unknown format, one that is not installed, a file of another suffix, or what its format cannot
            hold; says which can.
    """
    kind = format_named(format_name)
    if output.suffix != kind.suffix:
        raise UserError(f"{output}: a file of {format_name} ends in {kind.suffix}")
    if precision is not None and precision not in kind.precisions:
        able = " and ".join(name for name, other in FORMATS.items() if precision in other.precisions)
        raise UserError(f"{format_name} files in {precision} are not supported; {able} files are")
    if dynamic and not kind.dynamic:
        raise UserError(f"{format_name} files take pictures of one size")
    if dynamic and precision == "int8":
        raise UserError("int8 files take pictures of one size, for which their multiply-adds are counted")
    if dynamic and finished and task == "detection":
        raise UserError("detections need anchors, which are for pictures of one size: export the raw outputs")


def write_program(
    program: ExportedProgram,
    reference: Deployed,
    output: Path,
    metadata: Metadata,
    pictures: Sequence[np.ndarray],
    tolerance: Tolerance,
    complete: Callable[[Exported], None] | None = None,
) -> Exported:
    """Write a program in the format of the file's suffix, if it computes what ``reference`` does.

    It is written into a folder beside ``output``, opened, compared and completed there, and moved only then.

    Raises:
        UserError: the format cannot hold it, it disagrees, or it cannot be written there.
    """
    name = format_of(output)
    kind = format_named(name)
    make_folder(output.parent)
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export.") as folder:
            draft = Path(folder) / output.name
            try:
                kind.write(program, draft, metadata)
                runtime = kind(draft)
                agreement = compare(reference, runtime, pictures, tolerance)
            except OSError:
                raise
            except Exception as error:  # the converters raise whatever their compilers do
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise UserError(f"{name} cannot hold this network: {reason}") from error
            if failure := tolerance.failure(agreement):
                raise UserError(f"{output} was not written: {failure} (on {agreement.pictures} pictures)")
            files = sorted(Path(folder).iterdir())
            if complete:
                complete(Exported(draft, tuple(files), metadata, agreement))
            for file in Path(folder).iterdir():
                os.replace(file, output.parent / file.name)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
    return Exported(output, tuple(output.parent / file.name for file in files), metadata, agreement)


def export_program(deployed: Deployed, dynamic: bool = False) -> ExportedProgram:
    """The network as ``torch.export`` sees it, for one picture of its size, or of sizes around that.

    A dynamic program holds the decisions taken at ``deployed.image_size``; its range constraints say for which sizes
    they are the same.
    """
    images = torch.zeros(1, 3, *deployed.image_size, dtype=torch.uint8)
    sides = {2: Dim.AUTO(max=LARGEST), 3: Dim.AUTO(max=LARGEST)} if dynamic else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about torch's own code
        return torch.export.export(deployed.eval(), (images,), dynamic_shapes={"images": sides} if dynamic else None)


def _sizes(program: ExportedProgram) -> tuple[Range, Range]:
    """The heights and widths that a dynamic program is for."""
    (images,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == "images")
    ranges = []
    for side in images.meta["val"].shape[2:]:
        if isinstance(side, int):
            raise UserError("this network takes pictures of one size only; export it without --dynamic")
        bounds = program.range_constraints[side.node.expr]
        ranges.append((int(bounds.lower), min(int(bounds.upper), LARGEST)))
    return ranges[0], ranges[1]
