"""The exceptions that are meant for people: a mistake of theirs, and their own wish to stop."""

from __future__ import annotations

import signal


class UserError(Exception):
    """A mistake in what the user gave us, said in one sentence that names it and what to do.

    The commands print the sentence without a traceback and exit with status 1.

    Args:
        message: names the file, the key or the value, what was expected and what to do.
        key: the configuration key the mistake belongs to (``model.backbone.name``), where there is
            one; :meth:`densevision.config.LoadedConfig.blaming_origin` then adds the file it stands in.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class Stopped(Exception):
    """A run has saved its state and ended because a signal asked for it; the commands exit with 128 + ``number``."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
