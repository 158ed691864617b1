"""The commands: ``densevision VERB ...``, and ``tools/VERB.py`` for each.

A verb is a module here with ``main(argv) -> int``. It is imported when it is called, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import densevision
from densevision.config.lookup import unknown_name
from densevision.errors import Stopped, UserError
from densevision.launch import process_number

VERBS = {
    "train": "train a model from a configuration",
    "evaluate": "judge a checkpoint or an exported file on a data set",
    "compare": "runs side by side: a table, a page, Markdown",
    "predict": "run a checkpoint on pictures",
    "export": "write a checkpoint as a file for another runtime, compared with PyTorch",
    "benchmark": "latency, memory and size of models, in every runtime",
    "profile": "parameters and multiply-adds of a model, or of all published rows",
    "check_data": "read a whole data set and say what is wrong with it",
    "search": "search for a backbone that suits a task and a budget",
    "show_batch": "draw what the model will see",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit status: 0 done, 1 a mistake that was explained, 2 wrong usage,
    128 + number stopped by that signal."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        print("usage: densevision VERB ...   (densevision VERB --help explains one)\n")
        print("\n".join(f"  {verb:{width}}  {text}" for verb, text in VERBS.items()))
        return 0
    if argv[0] == "--version":
        print(densevision.__version__)
        return 0
    if argv[0] not in VERBS:
        print(f"error: {unknown_name('verb', argv[0], VERBS)}", file=sys.stderr)
        return 2
    return run(argv[0], argv[1:])


def run(verb: str, argv: Sequence[str] | None = None) -> int:
    """Call one verb and turn a user's mistake into one line on standard error."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return int(import_module(f"densevision.cli.{verb}").main(argv))
    except UserError as error:
        number = process_number()
        print(f"error{f' in process {number}' if number else ''}: {error}", file=sys.stderr)
        return 1
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.number
    except BrokenPipeError:  # whoever reads our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def tool(verb: str) -> NoReturn:
    """Be ``tools/VERB.py``."""
    forget_tools_folder()
    sys.exit(run(verb))


def forget_tools_folder() -> None:
    """Take the script's own folder off the path: ``tools/profile.py`` would hide the module that torch imports."""
    folder = Path(sys.argv[0]).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]


def parser(verb: str, usage: str = "") -> argparse.ArgumentParser:
    """An argument parser that shows the verb's one-line description and the given epilogue."""
    return argparse.ArgumentParser(
        prog=f"densevision {verb}",
        description=VERBS[verb],
        epilog=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
