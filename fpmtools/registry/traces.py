"""What importing a plugin has changed in its process, which in the user's own would disturb everybody else."""

from __future__ import annotations

import locale
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

# What is looked at, in words → how it is; compared before and after.
LOOKS: dict[str, Callable[[], Any]] = {
    "changes the working folder": lambda: _inode("."),
    "changes stdin, stdout or stderr": lambda: [
        *(_inode(descriptor) for descriptor in (0, 1, 2)),
        *map(id, (sys.stdin, sys.stdout, sys.stderr)),
    ],
    "changes signal handlers": lambda: [id(signal.getsignal(number)) for number in signal.valid_signals()],
    "changes the environment": lambda: dict(os.environ),
    "changes the locale": lambda: locale.setlocale(locale.LC_ALL),
    "makes errors of warnings": lambda: sum(rule[0] == "error" for rule in warnings.filters),
    "starts threads": threading.active_count,
    "changes the recursion limit": sys.getrecursionlimit,
}


def state() -> dict[str, Any]:
    """What is to be compared later; the modules too, which a plugin may remove."""
    return {"modules": set(sys.modules)} | {words: look() for words, look in LOOKS.items()}


def left(before: dict[str, Any], plugin: str) -> list[str]:
    """What is other than ``before``, in words; ``plugin`` is the value of its entry point."""
    found = [words for words, look in LOOKS.items() if look() != before[words]]
    found += ["removes modules"] if before["modules"] - set(sys.modules) else []
    patched = _patched(plugin.partition(":")[0].partition(".")[0].strip())
    found += [f"replaces {', '.join(patched[:3])}"] if patched else []
    return found


def _patched(package: str) -> list[str]:
    """Functions and classes of ``package`` that stand in modules of others."""
    names = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package or not isinstance(module, types.ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if _home(value).partition(".")[0] == package:
                names.append(f"{name}.{key}")
    return sorted(names)


def _home(value: Any) -> str:
    """The module in which a function or a class was written, whatever it was made to look like."""
    kind = type(value)  # isinstance would ask the value, of which some answer with a warning
    if kind is types.FunctionType:
        return str(value.__globals__.get("__name__", ""))
    return str(value.__module__) if issubclass(kind, type) else ""


def _inode(place: str | int) -> tuple[int, int] | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino
