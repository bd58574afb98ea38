"""The errors a user can cause, and the exit code each one ends the command line with.

Every message is one line that says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


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
    """A microscope that is missing a number, or whose numbers cannot work; ``missing``: the names of such numbers."""

    missing: tuple[str, ...] = ()


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

    @classmethod
    def of(cls, error: OSError, where: str | Path | None) -> OutputError:
        """What the system said of ``where``."""
        # A write that the disk had no room for has no errno where NumPy noticed it.
        reason = error.strerror or f"not all of it could be written ({error}); the disk may be full"
        return cls(f"cannot write {where or 'the results'}: {reason}")


class InUse(OutputError):
    """A folder that another process works in."""


class ClusterError(FpmError):
    """A scheduler that does not answer, or workers that cannot do what is asked of them."""

    exit_code = 7


class Terminated(FpmError):
    """SIGTERM or SIGHUP asked a run to leave; it can be resumed. The exit code is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


EXIT_PARTIAL = 6  # `compare` finished, but at least one solver did not; or a run in tiles has holes
EXIT_INTERRUPTED = 130  # Ctrl-C; what had been computed was kept


def printable(value: object, most: int = 200) -> str:
    """Text (or another value) from elsewhere, fit to be shown: control characters escaped, a long middle left out."""
    try:
        text = str(value)
    except Exception:  # an integer of more than 4300 digits, an object whose class is somebody's
        text = f"<{type(value).__name__}>"
    text = text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"
    return "".join(c if c.isprintable() else _spelled_out(c) for c in text)


def expect(value: object, kind: type | tuple[type, ...], what: str, wanted: str, hint: str = "") -> None:
    """Raise :class:`OptionError` in one line where ``value`` is of none of these kinds.

    >>> expect("64", int, "image_shape", "a whole number")
    Traceback (most recent call last):
    ...
    fpmtools.errors.OptionError: image_shape must be a whole number, got the text '64'
    """
    if not isinstance(value, kind):
        got = f"the text {printable(value, 80)!r}" if isinstance(value, str) else _kind(value)
        raise OptionError(f"{what} must be {wanted}, got {got}{f'; {hint}' if hint else ''}")


def _kind(value: object) -> str:
    """What a value is, short: numbers as they are, all else by its kind."""
    if value is None or isinstance(value, int | float):
        return str(value)
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _spelled_out(character: str) -> str:
    r"""Such as ``\x1b``; half of a surrogate pair is how Python spells a byte of a name that is not UTF-8."""
    code = ord(character)
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def nearest(name: str, choices: Iterable[str], likeness: float = 0.5) -> str | None:
    """The choice most like ``name``, if one is at least so much like it."""
    return next(iter(difflib.get_close_matches(name.lower(), choices, n=1, cutoff=likeness)), None)


def unknown(kind: str, name: str, choices: Iterable[str]) -> OptionError:
    """An :class:`OptionError` for a name that does not exist, suggesting the nearest that does."""
    known = sorted(choices)
    near = nearest(printable(name, 80), known)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"
    return OptionError(f"unknown {kind} '{printable(name, 80)}': {hint}")
