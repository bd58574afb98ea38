"""Which solvers and metrics are installed, and who supplied each: the plugin host.

A distribution offers solvers through the entry-point group ``fpmtools``; the entry point names a module with a
``fpmtools_solvers`` hook, and is itself **named after the solver**. Asking for a solver by name then imports that one
module and no other, so that no other plugin can slow it down or disturb it. Only a name that no entry point has, and
:func:`solvers`, look into all of them. Metrics, readers and writers come the same way, through the hooks
``fpmtools_metrics``, ``fpmtools_readers`` and ``fpmtools_writers``.

Plugins are other people's code: whoever looks into all of them has each imported in a child process that is watched
for time and memory, and takes plain data from it. What goes wrong is kept as a :class:`Fault`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fpmtools.errors import DataError, FpmError, OptionError, OutputError, SolverError, printable, unknown
from fpmtools.records import AnyRecord, MetricRecord, ReaderRecord, Record, SolverRecord, WriterRecord
from fpmtools.registry import asking, classes
from fpmtools.registry.classes import Description
from fpmtools.registry.entries import GROUP, Entry, Fault, Supplied, entries, one_line
from fpmtools.registry.hooks import KINDS, announce, foreign, hookimpl

if TYPE_CHECKING:
    from fpmtools.reconstruction import Reconstruction
    from fpmtools.solver import Solver

__all__ = [
    "Description",
    "Fault",
    "Supplied",
    "asker",
    "built_in_metrics",
    "built_in_readers",
    "built_in_solver",
    "built_in_writers",
    "describe_solver",
    "describe_solvers",
    "faults",
    "find",
    "format_function",
    "hookimpl",
    "metric_function",
    "metrics",
    "readers",
    "reconstruction_class",
    "solver_class",
    "solvers",
    "writers",
]


def solvers() -> list[Supplied[SolverRecord]]:
    """Every usable solver, by name. Asks every installed plugin, apart from this process."""
    return sorted(_scan().solvers.values(), key=lambda supplied: supplied.record.name)


def metrics() -> list[Supplied[MetricRecord]]:
    """Every usable metric: the built-in ones in their own order, then the others by distribution."""
    return list(_scan().named.metrics.values())


def readers() -> list[Supplied[ReaderRecord]]:
    """Every usable format of measurements: the built-in ones in their own order, then the others by distribution."""
    return list(_scan().named.readers.values())


def writers() -> list[Supplied[WriterRecord]]:
    """Every usable format of results: the built-in ones in their own order, then the others by distribution."""
    return list(_scan().named.writers.values())


def built_in_metrics() -> Iterator[Supplied[MetricRecord]]:
    """The metrics of fpmtools itself; looks into no other package."""
    return _built_in(MetricRecord)


def built_in_readers() -> Iterator[Supplied[ReaderRecord]]:
    """The readers of fpmtools itself; looks into no other package."""
    return _built_in(ReaderRecord)


def built_in_writers() -> Iterator[Supplied[WriterRecord]]:
    """The writers of fpmtools itself; looks into no other package."""
    return _built_in(WriterRecord)


def _built_in(kind: type[Record]) -> Iterator[Supplied[Record]]:
    for entry in entries()[0]:
        for record in _announced(entry)[0] if entry.built_in else ():
            if isinstance(record, kind):
                yield entry.supplies(record)


def faults() -> list[Fault]:
    """Everything that is wrong with the installed plugins, as far as can be seen without importing a solver."""
    return list(_scan().faults)


def built_in_solver(name: str) -> bool:
    """Whether fpmtools itself supplies the solver of that name; looks into no other package."""
    return any(entry.built_in and entry.name == name for entry in entries()[0])


def metric_function(name: str) -> Callable[[Any], float | None]:
    """The function that computes the metric called ``name``, imported and guarded: it raises only FpmError.

    Raises :class:`OptionError` for an unknown name and :class:`SolverError` for a metric that cannot be used.
    """
    supplied = next((own for own in built_in_metrics() if own.record.name == name), None)
    supplied = supplied or next((scan.named.metrics[name] for scan in _scans() if name in scan.named.metrics), None)
    if supplied is None:
        raise unknown("metric", name, _scan().named.metrics)
    what, path = f"metric {name!r} of {supplied}", supplied.record.measure
    module, _, function = path.partition(":")
    with foreign(f"{what}: cannot import {path}"):
        measure = getattr(importlib.import_module(module), function)

    def guarded(case: Any) -> float | None:
        with foreign(what, passing=(FpmError,)):  # such as a data set without truth: not the metric's fault
            value = measure(case)
            return None if value is None else float(value)

    return guarded


def format_function(supplied: Supplied[ReaderRecord] | Supplied[WriterRecord]) -> Callable[..., Any]:
    """The function that reads or writes a format, imported; other packages' raise only FpmError, OSError, MemoryError.

    What else goes wrong in it is a :class:`DataError` of a reader, an :class:`OutputError` of a writer.
    """
    record = supplied.record
    kind: type[FpmError]
    if isinstance(record, ReaderRecord):
        what, path, kind = f"reader {record.name!r} of {supplied}", record.read, DataError
    else:
        what, path, kind = f"writer {record.name!r} of {supplied}", record.write, OutputError
    module, _, name = path.partition(":")
    with foreign(f"{what}: cannot import {path}", kind=kind):
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    if supplied.distribution == GROUP:
        return function

    def guarded(*given: Any) -> Any:
        with foreign(what, (FpmError, OSError, MemoryError), kind):
            return function(*given)

    return guarded


def find(name: str) -> Supplied[SolverRecord]:
    """The record of the solver called ``name``.

    Raises :class:`OptionError` with the nearest name when there is none, :class:`SolverError` when there is an entry
    point of that name but it is broken.
    """
    for supplied in _candidates(name):
        if supplied.record.name == name:
            return supplied
    raise _not_usable(name)


def solver_class(name: str) -> type[Solver[Any]]:
    """The class of the solver called ``name``, imported and checked.

    Raises :class:`OptionError` for an unknown name and :class:`SolverError` for a solver that cannot be used.
    """
    return classes.load_solver(find(name))


def describe_solver(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Description:
    """What the solver called ``name`` says of itself, once ``options`` are checked for it.

    Raises :class:`OptionError` for an unknown name or wrong options, :class:`SolverError` for a solver that is broken.
    """
    (found,) = describe_solvers([(name, options)])
    if isinstance(found, FpmError):
        raise found
    return found


def describe_solvers(
    asked: Iterable[tuple[str, Mapping[str, Any]]], ready: asking.Asker | None = None
) -> list[Description | FpmError]:
    """Several solvers, each with options; for one that is broken or takes no such options the error.

    The classes of built-in solvers are imported here, all others apart from this process, in one that :func:`asker`
    has made ``ready`` or in a new one. Raises :class:`OptionError` for an unknown name, before anything is imported.
    """
    found: dict[int, Description | FpmError] = {}
    own: dict[int, tuple[Supplied[SolverRecord], Mapping[str, Any]]] = {}
    others: dict[int, tuple[Supplied[SolverRecord], Mapping[str, Any]]] = {}
    for number, (name, options) in enumerate(asked):
        if built_in_solver(name):
            own[number] = find(name), options
        elif supplied := next((scan.solvers[name] for scan in _scans() if name in scan.solvers), None):
            others[number] = supplied, options
        else:
            found[number] = _not_usable(name)
    answers = asking.descriptions(((_entry_of(s), s.record.name, options) for s, options in others.values()), ready)
    for (number, (supplied, _)), answer in zip(others.items(), answers, strict=True):
        found[number] = _described(supplied, answer)
    for number, (supplied, options) in own.items():
        try:
            found[number] = classes.describe(supplied, options)
        except FpmError as error:
            found[number] = error
    return [found[number] for number in sorted(found)]


@contextlib.contextmanager
def asker() -> Iterator[asking.Asker | None]:
    """A process that gets ready to describe other packages' solvers while their names are asked for; None without."""
    if all(entry.built_in for entry in entries()[0]):
        yield None
    else:
        with asking.started(classes=True) as ready:
            yield ready


def reconstruction_class(kind: str) -> type[Reconstruction]:
    """The class that restores saved results of this ``kind``, imported and checked.

    Raises :class:`SolverError` when no installed plugin announces it, or its class cannot be used.
    """
    from fpmtools.reconstruction import Reconstruction

    for supplied in _candidates(kind):
        if kind in supplied.record.reconstructions:
            what = f"results of kind {kind!r} of {supplied}"
            cls = classes.import_class(supplied.record.reconstructions[kind], Reconstruction, what)
            if getattr(cls, "kind", None) != kind:
                raise SolverError(f"{what}: class {cls.__name__} calls its kind {getattr(cls, 'kind', None)!r}")
            return cls
    raise SolverError(f"no installed solver opens results of kind {kind!r}: install the plugin that made them")


def _candidates(key: str) -> Iterator[Supplied[SolverRecord]]:
    """Records that may supply ``key``: first of the entry points of that name, one by one, and only then of all."""
    for entry in entries()[0]:
        if entry.name == key:
            for record in _announced(entry)[0]:
                if isinstance(record, SolverRecord):
                    yield entry.supplies(record)
    for scan in _scans():
        yield from scan.solvers.values()


def _scans() -> Iterator[_Scan]:
    """Where to look for what is asked for by name: if it is not there, a slow plugin gets the time to say more."""
    yield _scan()
    if _scan().slow:
        yield _scan(asking.PATIENT_S)


@dataclass(frozen=True)
class _Named:
    """Records that belong to whoever is first to have their names."""

    metrics: dict[str, Supplied[MetricRecord]]
    readers: dict[str, Supplied[ReaderRecord]]
    writers: dict[str, Supplied[WriterRecord]]

    def take(self, entry: Entry, record: MetricRecord | ReaderRecord | WriterRecord) -> Fault | None:
        """Keep a record, unless somebody else's has its name: the fault of that."""
        owner: Supplied[Any]
        if isinstance(record, MetricRecord):
            what, owner = "metric", self.metrics.setdefault(record.name, entry.supplies(record))
        elif isinstance(record, ReaderRecord):
            what, owner = "reader", self.readers.setdefault(record.name, entry.supplies(record))
        else:
            what, owner = "writer", self.writers.setdefault(record.name, entry.supplies(record))
        if (owner.distribution, owner.record) == (entry.distribution, record):
            return None
        return entry.fault(f"{what} {record.name!r} is already supplied by {owner.distribution}; this one is left out")


@dataclass(frozen=True)
class _Scan:
    """What all entry points together offer, and what is wrong with them."""

    solvers: dict[str, Supplied[SolverRecord]]
    named: _Named
    faults: tuple[Fault, ...]
    slow: bool


@functools.cache
def _scan(seconds: float | None = None) -> _Scan:
    """Ask every entry point, each for so long, and settle who has each name."""
    found, broken = entries()
    told = [(entry, *_announced(entry)) for entry in found if entry.built_in]
    others = [entry for entry in found if not entry.built_in]
    modules = {(entry.distribution, entry.value): entry for entry in others}  # several solvers may share one
    answers = dict(zip(modules, asking.announcements(list(modules.values()), seconds), strict=True))
    told += [(entry, *_remade(entry, answers[entry.distribution, entry.value])) for entry in others]
    claims: list[tuple[Entry, SolverRecord]] = []
    named = _Named({}, {}, {})
    for entry, records, faults in told:
        broken += faults
        for record in records:
            if isinstance(record, SolverRecord):
                claims.append((entry, record))
            elif fault := named.take(entry, record):
                broken += (fault,)
    # An entry point that is named after its solver is found without a scan, so here too it must win.
    claims.sort(key=lambda claim: (claim[0].name != claim[1].name, claim[0].rank))
    usable, refused = _settle(claims)
    slow = any("slow" in answer for answer in answers.values())
    return _Scan(usable, named, broken + refused, slow)


def _settle(claims: list[tuple[Entry, SolverRecord]]) -> tuple[dict[str, Supplied[SolverRecord]], tuple[Fault, ...]]:
    """Give each name and kind to the first that claims it."""
    usable: dict[str, Supplied[SolverRecord]] = {}
    broken: tuple[Fault, ...] = ()
    kinds: dict[str, tuple[str, str]] = {
        "planes": (GROUP, "fpmtools.reconstruction:PlaneStack"),
        "low-rank": (GROUP, "fpmtools.low_rank:LowRankStack"),
    }
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
def _announced(entry: Entry) -> tuple[tuple[AnyRecord, ...], tuple[Fault, ...]]:
    """What an entry point announces when it is imported here."""
    try:
        return announce(entry), ()
    except SolverError as error:
        return (), (entry.fault(error),)


def _remade(entry: Entry, answer: Mapping[str, Any]) -> tuple[tuple[AnyRecord, ...], tuple[Fault, ...]]:
    """Records from the plain data of another process."""
    if "fault" in answer:
        return (), (entry.fault(answer["fault"]),)
    try:
        records = tuple(kind(**values) for what, kind in KINDS.items() for values in answer[what])
        traces = ", ".join(map(printable, answer["traces"]))
    except (FpmError, KeyError, TypeError, ValueError) as error:
        return (), (entry.fault(f"gave an answer that cannot be used: {one_line(error)}"),)
    return records, (entry.fault(f"has side effects: its import {traces}"),) if traces else ()


def _described(supplied: Supplied[SolverRecord], answer: Mapping[str, Any]) -> Description | FpmError:
    """A description, or the error, from the plain data of another process."""
    what = classes.called(supplied)
    if "fault" in answer:
        return SolverError(f"{what}: {answer['fault']}")
    if "error" in answer:
        kind = OptionError if answer["error"] == OptionError.__name__ else SolverError
        return kind(printable(answer["message"], 1000))
    try:
        return Description(supplied, answer["options"], answer["presets"], answer["resumable"])
    except KeyError:
        return SolverError(f"{what}: gave an answer that cannot be used")


def _not_usable(name: str) -> SolverError:
    """Why the solver of that name cannot be used; raises :class:`OptionError` when there is none."""
    found = _scan()
    for fault in found.faults:
        if fault.entry_point == name:
            return SolverError(f"solver {name!r} cannot be used: {fault}")
    raise unknown("solver", name, found.solvers)


def _entry_of(supplied: Supplied[SolverRecord]) -> Entry:
    return next(entry for entry in entries()[0] if entry.supplies(supplied.record) == supplied)
