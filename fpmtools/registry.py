"""Which solvers are installed, and who supplied each: the plugin host.

A distribution offers solvers through the entry-point group ``fpmtools``; the entry point names a module with a
``fpmtools_solvers`` hook, and is itself **named after the solver**. Asking for a solver by name then imports that one
module and no other, so that no other plugin can slow it down or disturb it. Only a name that no entry point has, and
:func:`solvers`, look into all of them.

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
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from fpmtools.errors import FpmError, SolverError, unknown

if TYPE_CHECKING:
    from fpmtools.reconstruction import Reconstruction
    from fpmtools.solver import Solver

GROUP = "fpmtools"
API_VERSION = 1
CAPABILITIES = frozenset({"2d", "z-stack", "continuous-z", "resume", "cuda"})

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hooks that a plugin can implement."""

    @hookspec
    def fpmtools_solvers(self) -> list[SolverRecord]:  # type: ignore[empty-body]
        """Announce solvers. Called once; must be quick, import no torch, and have no side effects."""


@dataclass(frozen=True, kw_only=True)
class SolverRecord:
    """What a plugin says about one solver.

    Parameters
    ----------
    name
        Lower-case letters, digits and hyphens, a letter first: what users type after ``--solver``.
    summary
        One line for the list of solvers.
    solver
        ``"module:Class"`` of a :class:`fpmtools.Solver`; imported when the solver is used, not before.
    reconstructions
        ``kind`` → ``"module:Class"`` of each :class:`fpmtools.Reconstruction` of its own that the solver returns.
        Solvers that return a ``PlaneStack`` leave it empty.
    capabilities
        Any of ``2d`` (one plane), ``z-stack`` (several planes), ``continuous-z`` (any z between them), ``resume``
        (has dump and restore), ``cuda`` (tested on a GPU).
    references
        Papers, with DOI.
    api_version
        The version of this contract that the plugin is written for.

    Raises
    ------
    SolverError, OptionError
        When a value is not of this form.
    """

    name: str
    summary: str
    solver: str
    reconstructions: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    references: tuple[str, ...] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        _need(_is_name(self.name), "name", self.name, "lower-case letters, digits and hyphens, a letter first")
        if isinstance(self.api_version, int) and self.api_version > API_VERSION:
            raise SolverError(
                f"solver {self.name!r} is written for version {self.api_version} of the solver interface and this "
                f"fpmtools has version {API_VERSION}: upgrade fpmtools"
            )
        _need(self.api_version == API_VERSION, "api_version", self.api_version, str(API_VERSION))
        one_line = isinstance(self.summary, str) and self.summary.strip() and "\n" not in self.summary
        _need(one_line, "summary", self.summary, "one line of text")
        _need(_is_class_path(self.solver), "solver", self.solver, "'module:Class'")
        kinds = self.reconstructions
        _need(isinstance(kinds, Mapping), "reconstructions", kinds, "a mapping of kind to 'module:Class'")
        for kind, path in kinds.items():
            _need(_is_name(kind) and _is_class_path(path), "reconstructions", {kind: path}, "{'kind': 'module:Class'}")
        for name in ("capabilities", "references"):
            words = getattr(self, name)
            is_words = isinstance(words, Iterable) and not isinstance(words, str)
            _need(is_words and all(isinstance(word, str) for word in words), name, words, "a collection of str")
        object.__setattr__(self, "capabilities", frozenset(self.capabilities))
        object.__setattr__(self, "references", tuple(self.references))
        for word in sorted(self.capabilities - CAPABILITIES):
            raise unknown(f"capability of solver {self.name!r}:", word, CAPABILITIES)


@dataclass(frozen=True)
class Supplied:
    """A usable record, and who supplied it."""

    record: SolverRecord
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


def solvers() -> list[Supplied]:
    """Every usable solver, by name. Imports every installed plugin's hook module, but no solver."""
    return sorted(_scan()[0].values(), key=lambda supplied: supplied.record.name)


def faults() -> list[Fault]:
    """Everything that is wrong with the installed plugins, as far as can be seen without importing a solver."""
    return list(_scan()[1])


def find(name: str) -> Supplied:
    """The record of the solver called ``name``.

    Raises :class:`OptionError` with the nearest name when there is none, :class:`SolverError` when there is an entry
    point of that name but it is broken.
    """
    for supplied in _candidates(name):
        if supplied.record.name == name:
            return supplied
    usable, broken = _scan()
    for fault in broken:
        if fault.entry_point == name:
            raise SolverError(f"solver {name!r} cannot be used: {fault}")
    raise unknown("solver", name, usable)


def solver_class(name: str) -> type[Solver[Any]]:
    """The class of the solver called ``name``, imported and checked.

    Raises :class:`OptionError` for an unknown name and :class:`SolverError` for a solver that cannot be used.
    """
    from fpmtools.solver import Solver, describe_options

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


def _candidates(key: str) -> Iterator[Supplied]:
    """Records that may supply ``key``: first of the entry points of that name, one by one, and only then of all."""
    for entry in _entries()[0]:
        if entry.name == key:
            for record in _announced(entry)[0]:
                yield Supplied(record, entry.distribution, entry.version, entry.name)
    yield from _scan()[0].values()


@functools.cache
def _scan() -> tuple[dict[str, Supplied], tuple[Fault, ...]]:
    """Ask every entry point, and settle who has each name."""
    entries, broken = _entries()
    claims: list[tuple[_Entry, SolverRecord]] = []
    for entry in entries:
        records, fault = _announced(entry)
        claims += [(entry, record) for record in records]
        broken += (fault,) if fault else ()
    # An entry point that is named after its solver is found without a scan, so here too it must win.
    claims.sort(key=lambda claim: (claim[0].name != claim[1].name, claim[0].rank))

    usable: dict[str, Supplied] = {}
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
            usable[record.name] = Supplied(record, entry.distribution, entry.version, entry.name)
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
def _announced(entry: _Entry) -> tuple[tuple[SolverRecord, ...], Fault | None]:
    """Import one entry point and call its hook, with a plugin manager of its own."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    try:
        with _foreign(f"{entry.value} cannot be imported"):
            plugin = metadata.EntryPoint(entry.name, entry.value, GROUP).load()
        with _foreign("has a wrong hook"):
            manager.register(plugin, entry.name)
            manager.check_pending()
        with _foreign("failed to announce its solvers"):
            answers = manager.hook.fpmtools_solvers()
            records = tuple(answers[0]) if len(answers) == 1 and isinstance(answers[0], list | tuple) else None
        if not answers:
            return (), entry.fault("has no fpmtools_solvers hook, or the hook returned None")
        if records is None or not all(isinstance(record, SolverRecord) for record in records):
            return (), entry.fault("fpmtools_solvers must return a list of SolverRecord")
    except SolverError as error:
        return (), entry.fault(error)
    return records, None


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
    """Run a plugin's code: its prints go to stderr, and all it raises, even SystemExit, becomes a SolverError."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SolverError(f"{what}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    """Kind and message of any exception, also of one whose ``__str__`` is broken."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:
        text = ""
    if isinstance(error, FpmError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _need(valid: object, name: str, value: object, form: str) -> None:
    if not valid:
        raise SolverError(f"SolverRecord: {name} {value!r} must be {form}")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9-]*", value) is not None


def _is_class_path(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value) is not None
