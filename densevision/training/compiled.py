"""torch.compile for the forward pass of training, where it works."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

_log = logging.getLogger("densevision")


def compile_training(model: nn.Module) -> None:
    """Let ``model`` run compiled in training, and as it is in evaluation, whose sizes vary and whose bits are compared.

    Where compiling fails (no C++ compiler, a GPU too old) this is said once and the model runs as it is. Names of
    weights stay as they are.
    """
    eager = model.forward
    compiled: Any = torch.compile(eager)

    def forward(*args: Any) -> Any:
        nonlocal compiled
        if compiled is None or not model.training:
            return eager(*args)
        try:
            return compiled(*args)
        except Exception as error:  # compilers raise what they like; an error of the model's own comes again from eager
            compiled = None
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            _log.warning("torch.compile does not work here, training goes on without it: %s", reason)
            return eager(*args)

    model.forward = forward
