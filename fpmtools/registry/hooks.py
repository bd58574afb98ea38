"""The hooks of a plugin, and what one entry point announces through them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import pluggy

from fpmtools.errors import FpmError, SolverError
from fpmtools.records import AnyRecord, MetricRecord, ReaderRecord, SolverRecord, WriterRecord, to_data
from fpmtools.registry.entries import GROUP, Entry, one_line

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

RECORD_LIMIT = 100  # of each kind, of one plugin


class Hooks:
    """The hooks that a plugin can implement."""

    @hookspec
    def fpmtools_solvers(self) -> list[SolverRecord]:  # type: ignore[empty-body]
        """Announce solvers. Called once; must be quick, import no torch, and have no side effects."""

    @hookspec
    def fpmtools_metrics(self) -> list[MetricRecord]:  # type: ignore[empty-body]
        """Announce metrics. Called once; must be quick, import no torch, and have no side effects."""

    @hookspec
    def fpmtools_readers(self) -> list[ReaderRecord]:  # type: ignore[empty-body]
        """Announce formats of measurements. Called once; must be quick, import no torch, and have no side effects."""

    @hookspec
    def fpmtools_writers(self) -> list[WriterRecord]:  # type: ignore[empty-body]
        """Announce formats of results. Called once; must be quick, import no torch, and have no side effects."""


KINDS: dict[str, type[AnyRecord]] = {
    "solvers": SolverRecord,
    "metrics": MetricRecord,
    "readers": ReaderRecord,
    "writers": WriterRecord,
}


def announce(entry: Entry, begin: Callable[[str], None] = lambda doing: None) -> tuple[AnyRecord, ...]:
    """Import one entry point and call its hooks, with a plugin manager of its own.

    The records are made anew from the plain values of the plugin's. ``begin`` is told what is done next. Raises
    :class:`SolverError` with what is wrong.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    begin("it was imported")
    with foreign(f"{entry.value} cannot be imported"):
        plugin = metadata.EntryPoint(entry.name, entry.value, GROUP).load()
    with foreign("has a wrong hook"):
        manager.register(plugin, entry.name)
        manager.check_pending()
    records: list[AnyRecord] = []
    answered = False
    for what, kind in KINDS.items():
        begin(f"it announced its {what}")
        with foreign(f"failed to announce its {what}"):
            answers = getattr(manager.hook, f"{GROUP}_{what}")()
            told = [record for answer in answers for record in _listed(answer)]
            right = all(isinstance(record, kind) for record in told)
        if len(told) > RECORD_LIMIT:
            raise SolverError(f"announces {len(told)} {what}; at most {RECORD_LIMIT} are looked at")
        if not right:
            raise SolverError(f"fpmtools_{what} must return a list of {kind.__name__}")
        with foreign(f"failed to announce its {what}"):
            records += [kind(**to_data(record, kind)) for record in told]
        answered |= bool(answers)
    if not answered:
        hooks = ", ".join(f"{GROUP}_{what}" for what in KINDS)
        raise SolverError(f"has none of the hooks {hooks}, or they returned None")
    return tuple(records)


def _listed(answer: Any) -> list[Any]:
    return list(answer) if isinstance(answer, list | tuple) else [None]


@contextlib.contextmanager
def foreign(what: str, passing: tuple[type[Exception], ...] = (), kind: type[FpmError] = SolverError) -> Iterator[None]:
    """Run a plugin's code: all it raises, even SystemExit, becomes a ``kind``, but for what is ``passing``.

    So does a KeyboardInterrupt that nobody's Ctrl-C has caused.
    """
    with _ctrl_c() as pressed:
        try:
            yield
        except passing:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and pressed:
                raise
            raise kind(f"{what}: {one_line(error)}") from error


@contextlib.contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """Signals of Ctrl-C that arrive meanwhile, handled as before; only the main thread gets any."""
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield pressed
        return

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
