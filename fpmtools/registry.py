"""Which solvers and metrics are installed, and who supplied each: the plugin host.

A distribution offers solvers through the entry-point group ``fpmtools``; the entry point names a module with a
``fpmtools_solvers`` hook, and is itself **named after the solver**. Asking for a solver by name then imports that one
module and no other, so that no other plugin can slow it down or disturb it. Only a name that no entry point has, and
:func:`solvers`, look into all of them. Metrics come the same way, through the hook ``fpmtools_metrics``.

Plugins are other people's code: reading their metadata, importing, calling the hook and checking its records happen
in a guard each, and what goes wrong is kept as a :class:`Fault` instead of ending the program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from fpmtools.errors import FpmError, SolverError, unknown
from fpmtools.records import MetricRecord, SolverRecord

if TYPE_CHECKING:
    from fpmtools.reconstruction import Reconstruction
    from fpmtools.solver import Solver

GROUP = "fpmtools"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hooks that a plugin can implement."""

    @hookspec
    def fpmtools_solvers(self) -> list[SolverRecord]:  # type: ignore[empty-body]
        """Announce solvers. Called once; must be quick, import no torch, and have no side effects."""

    @hookspec
    def fpmtools_metrics(self) -> list[MetricRecord]:  # type: ignore[empty-body]
        """Announce metrics. Called once; must be quick, import no torch, and have no side effects."""


Record = TypeVar("Record", SolverRecord, MetricRecord)


@dataclass(frozen=True)
class Supplied(Generic[Record]):
    """A usable record, and who supplied it."""

    record: Record
    distribution: str
    version: str
    entry_point: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Fault:
    """A plugin, or one of its records, that cannot be used; ``message`` is one line that says why."""

    entry_point: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f"plugin {self.entry_point!r} of {self.distribution}: {self.message}"


def solvers() -> list[Supplied[SolverRecord]]:
    """Every usable solver, by name. Imports every installed plugin's hook module, but no solver."""
    return sorted(_scan().solvers.values(), key=lambda supplied: supplied.record.name)


def metrics() -> list[Supplied[MetricRecord]]:
    """Every usable metric: the built-in ones in their own order, then the others by distribution."""
    return list(_scan().metrics.values())


def built_in_metrics() -> Iterator[Supplied[MetricRecord]]:
    """The metrics of fpmtools itself; looks into no other package."""
    for entry in _entries()[0]:
        for record in _announced(entry)[0] if entry.distribution == GROUP else ():
            if isinstance(record, MetricRecord):
                yield entry.supplies(record)


def faults() -> list[Fault]:
    """Everything that is wrong with the installed plugins, as far as can be seen without importing a solver."""
    return list(_scan().faults)


def built_in_solver(name: str) -> bool:
    """Whether fpmtools itself supplies the solver of that name; looks into no other package."""
    return any((entry.name, entry.distribution) == (name, GROUP) for entry in _entries()[0])


def metric_function(name: str) -> Callable[[Any], float | None]:
    """The function that computes the metric called ``name``, imported and guarded: it raises only FpmError.

    Raises :class:`OptionError` for an unknown name and :class:`SolverError` for a metric that cannot be used.
    """
    supplied = next((own for own in built_in_metrics() if own.record.name == name), None) or _scan().metrics.get(name)
    if supplied is None:
        raise unknown("metric", name, _scan().metrics)
    what, path = f"metric {name!r} of {supplied}", supplied.record.measure
    module, _, function = path.partition(":")
    with _foreign(f"{what}: cannot import {path}"):
        measure = getattr(importlib.import_module(module), function)

    def guarded(case: Any) -> float | None:
        try:
            with _foreign(what):
                value = measure(case)
                return None if value is None else float(value)
        except SolverError as error:
            if isinstance(error.__cause__, FpmError):  # such as a data set without truth: not the metric's fault
                raise error.__cause__ from None
            raise

    return guarded


def find(name: str) -> Supplied[SolverRecord]:
    """The record of the solver called ``name``.

    Raises :class:`OptionError` with the nearest name when there is none, :class:`SolverError` when there is an entry
    point of that name but it is broken.
    """
    for supplied in _candidates(name):
        if supplied.record.name == name:
            return supplied
    found = _scan()
    for fault in found.faults:
        if fault.entry_point == name:
            raise SolverError(f"solver {name!r} cannot be used: {fault}")
    raise unknown("solver", name, found.solvers)


def solver_class(name: str) -> type[Solver[Any]]:
    """The class of the solver called ``name``, imported and checked.

    Raises :class:`OptionError` for an unknown name and :class:`SolverError` for a solver that cannot be used.
    """
    from fpmtools.options import describe_options
    from fpmtools.solver import Solver

    supplied = find(name)
    what = f"solver {name!r} of {supplied}"
    cls = _import_class(supplied.record.solver, Solver, what)
    if not dataclasses.is_dataclass(getattr(cls, "Options", None)):
        raise SolverError(f"{what}: {supplied.record.solver} has no Options dataclass")
    with _foreign(f"{what}: cannot read its options"):
        options = describe_options(cls)
    for option in options:
        if "doc" not in option:
            raise SolverError(
                f"{what}: option {option['name']} must be made with fpmtools.option(default, description)"
            )
    return cls


def reconstruction_class(kind: str) -> type[Reconstruction]:
    """The class that restores saved results of this ``kind``, imported and checked.

    Raises :class:`SolverError` when no installed plugin announces it, or its class cannot be used.
    """
    from fpmtools.reconstruction import Reconstruction

    for supplied in _candidates(kind):
        if kind in supplied.record.reconstructions:
            what = f"results of kind {kind!r} of {supplied}"
            cls = _import_class(supplied.record.reconstructions[kind], Reconstruction, what)
            if getattr(cls, "kind", None) != kind:
                raise SolverError(f"{what}: class {cls.__name__} calls its kind {getattr(cls, 'kind', None)!r}")
            return cls
    raise SolverError(f"no installed solver opens results of kind {kind!r}: install the plugin that made them")


@dataclass(frozen=True)
class _Entry:
    """An entry point, and the distribution that has it."""

    name: str
    value: str
    distribution: str
    version: str

    @property
    def rank(self) -> tuple[bool, str, str]:
        """Who comes first where two want one name: the built-ins, then the rest in alphabetical order."""
        return self.distribution != GROUP, self.distribution, self.name

    def fault(self, message: object) -> Fault:
        return Fault(self.name, self.distribution, str(message))

    def supplies(self, record: Record) -> Supplied[Record]:
        return Supplied(record, self.distribution, self.version, self.name)


def _candidates(key: str) -> Iterator[Supplied[SolverRecord]]:
    """Records that may supply ``key``: first of the entry points of that name, one by one, and only then of all."""
    for entry in _entries()[0]:
        if entry.name == key:
            for record in _announced(entry)[0]:
                if isinstance(record, SolverRecord):
                    yield entry.supplies(record)
    yield from _scan().solvers.values()


@dataclass(frozen=True)
class _Scan:
    """What all entry points together offer, and what is wrong with them."""

    solvers: dict[str, Supplied[SolverRecord]]
    metrics: dict[str, Supplied[MetricRecord]]
    faults: tuple[Fault, ...]


@functools.cache
def _scan() -> _Scan:
    """Ask every entry point, and settle who has each name."""
    entries, broken = _entries()
    claims: list[tuple[_Entry, SolverRecord]] = []
    measures: dict[str, Supplied[MetricRecord]] = {}
    for entry in entries:
        records, fault = _announced(entry)
        broken += (fault,) if fault else ()
        for record in records:
            if isinstance(record, SolverRecord):
                claims.append((entry, record))
                continue
            owner = measures.setdefault(record.name, entry.supplies(record))
            if (owner.distribution, owner.record) != (entry.distribution, record):
                message = f"metric {record.name!r} is already supplied by {owner.distribution}; this one is left out"
                broken += (entry.fault(message),)
    # An entry point that is named after its solver is found without a scan, so here too it must win.
    claims.sort(key=lambda claim: (claim[0].name != claim[1].name, claim[0].rank))
    usable, refused = _settle(claims)
    return _Scan(usable, measures, broken + refused)


def _settle(claims: list[tuple[_Entry, SolverRecord]]) -> tuple[dict[str, Supplied[SolverRecord]], tuple[Fault, ...]]:
    """Give each name and kind to the first that claims it."""
    usable: dict[str, Supplied[SolverRecord]] = {}
    broken: tuple[Fault, ...] = ()
    kinds: dict[str, tuple[str, str]] = {"planes": (GROUP, "fpmtools.reconstruction:PlaneStack")}
    for entry, record in claims:
        wanted = {kind: (entry.distribution, path) for kind, path in record.reconstructions.items()}
        taken = next((kind for kind, owner in wanted.items() if kinds.get(kind, owner) != owner), None)
        holder = usable.get(record.name)
        if holder and (holder.distribution, holder.record) == (entry.distribution, record):
            continue  # entry points of several solvers may share one module, and then announce all of them
        if holder:
            message = f"solver {record.name!r} is already supplied by {holder.distribution}; this one is left out"
            broken += (entry.fault(message),)
        elif taken is not None:
            owner = kinds[taken][0]
            message = f"solver {record.name!r} is left out: results of kind {taken!r} already belong to {owner}"
            broken += (entry.fault(message),)
        else:
            usable[record.name] = entry.supplies(record)
            kinds.update(wanted)
    return usable, broken


@functools.cache
def _entries() -> tuple[tuple[_Entry, ...], tuple[Fault, ...]]:
    """All entry points of the group, built-ins first, read distribution by distribution: one may be damaged.

    A distribution that is seen twice (editable, or twice on the path) counts where it is seen first, as for imports.
    """
    entries: dict[str, list[_Entry]] = {}
    broken: list[Fault] = []
    for found in metadata.distributions():
        name = "?"
        try:
            if GROUP not in (found.read_text("entry_points.txt") or ""):
                continue
            name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
            here = [_Entry(e.name, e.value, name, found.version) for e in found.entry_points if e.group == GROUP]
            if here:
                entries.setdefault(name, here)
        except Exception as error:
            broken.append(Fault("?", name, f"damaged metadata in {getattr(found, '_path', '?')}: {_one_line(error)}"))
    return tuple(sorted((e for some in entries.values() for e in some), key=lambda e: e.rank)), tuple(broken)


@functools.cache
def _announced(entry: _Entry) -> tuple[tuple[SolverRecord | MetricRecord, ...], Fault | None]:
    """Import one entry point and call its hooks, with a plugin manager of its own."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    try:
        with _foreign(f"{entry.value} cannot be imported"):
            plugin = metadata.EntryPoint(entry.name, entry.value, GROUP).load()
        with _foreign("has a wrong hook"):
            manager.register(plugin, entry.name)
            manager.check_pending()
        records: list[Any] = []
        answered = False
        for what, kind in (("solvers", SolverRecord), ("metrics", MetricRecord)):
            with _foreign(f"failed to announce its {what}"):
                answers = getattr(manager.hook, f"{GROUP}_{what}")()
                told = [r for answer in answers for r in (answer if isinstance(answer, list | tuple) else [None])]
            if not all(isinstance(record, kind) for record in told):
                return (), entry.fault(f"fpmtools_{what} must return a list of {kind.__name__}")
            answered |= bool(answers)
            records += told
    except SolverError as error:
        return (), entry.fault(error)
    if not answered:
        return (), entry.fault("has no fpmtools_solvers hook and no fpmtools_metrics hook, or they returned None")
    return tuple(records), None


def _import_class(path: str, base: type[Any], what: str) -> type[Any]:
    """Import ``"module:Class"`` and check that it is a complete subclass of ``base``."""
    module, _, name = path.partition(":")
    with _foreign(f"{what}: cannot import {path}"):
        cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise SolverError(f"{what}: {path} is not a subclass of fpmtools.{base.__name__}")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise SolverError(f"{what}: {path} does not implement {missing}")
    return cls


@contextlib.contextmanager
def _foreign(what: str) -> Iterator[None]:
    """Run a plugin's code: its prints go to stderr, and all it raises, even SystemExit, becomes a SolverError.

    So does a KeyboardInterrupt that nobody's Ctrl-C has caused.
    """
    with _ctrl_c() as pressed:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and pressed:
                raise
            raise SolverError(f"{what}: {_one_line(error)}") from error


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


def _one_line(error: BaseException) -> str:
    """Kind and message of any exception, also of one whose ``__str__`` is broken."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:
        text = ""
    if isinstance(error, FpmError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
