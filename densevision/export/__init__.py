"""Networks as files for other runtimes, each compared with PyTorch as it is written.

``write.py`` joins the parts: the network rewritten (``optimise.py``) behind one signature (``deployed.py``), the
formats (``formats.py``, ``runtimes.py``), what a file says of itself (``metadata.py``) and the comparison
(``agreement.py``); ``card.py`` describes the result.
"""

from densevision.export.agreement import Agreement, Tolerance, compare
from densevision.export.deployed import Deployed
from densevision.export.formats import FORMATS, format_named, format_of, installed, is_exported, open_file
from densevision.export.metadata import Metadata
from densevision.export.optimise import optimised
from densevision.export.precision import FIGURES, PrecisionReport
from densevision.export.runtimes import Runtime
from densevision.export.write import Exported, check_request, export_model, export_program, write_program

__all__ = [
    "FIGURES",
    "FORMATS",
    "Agreement",
    "Deployed",
    "Exported",
    "Metadata",
    "PrecisionReport",
    "Runtime",
    "Tolerance",
    "check_request",
    "compare",
    "export_model",
    "export_program",
    "format_named",
    "format_of",
    "installed",
    "is_exported",
    "open_file",
    "optimised",
    "write_program",
]
