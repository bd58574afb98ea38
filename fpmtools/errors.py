"""The errors a user can cause, and the exit code each one ends the command line with.

Every message is one line that says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FpmError(Exception):
    """Base of all errors that fpmtools raises on purpose."""

    exit_code = 1


class OptionError(FpmError):
    """An unknown name, or a value that is out of range or of the wrong kind."""

    exit_code = 2


class DataError(FpmError):
    """A file or a set of measurements that cannot be used as it is."""

    exit_code = 3


class OpticsError(DataError):
    """A microscope that is missing a number, or whose numbers cannot work."""


class SolverError(FpmError):
    """A solver that could not be loaded, or that failed; ``status`` is what a comparison's row says."""

    exit_code = 4
    status = "failed"


class DivergedError(SolverError):
    """A solver whose loss or result is no longer finite."""

    status = "diverged"


class OutOfMemoryError(SolverError):
    """A solver that asked for more memory than there is."""

    status = "out of memory"


class OutputError(FpmError):
    """A result that cannot be written: folder in use, no permission, disk full."""

    exit_code = 5


class Terminated(FpmError):
    """SIGTERM or SIGHUP asked a run to leave; it can be resumed. The exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


EXIT_PARTIAL = 6  # `compare` finished, but at least one solver did not
EXIT_INTERRUPTED = 130  # Ctrl-C; what had been computed was kept


def unknown(kind: str, name: str, choices: Iterable[str]) -> OptionError:
    """An :class:`OptionError` for a name that does not exist, suggesting the nearest that does."""
    known = sorted(choices)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return OptionError(f"unknown {kind} {name!r}: {hint}")
