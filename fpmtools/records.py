"""What a plugin announces: one record per solver, metric, reader or writer, checked when it is made."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from fpmtools.errors import SolverError, printable, unknown

API_VERSION = 1
LAST = 1000  # the rank of a number that says nothing about its place
NAME_LIMIT, LINE_LIMIT = 60, 300  # characters
HOLDS = ("complex", "real", "picture")  # what a written file may hold
CAPABILITIES: Mapping[str, str] = {
    "2d": "one plane",
    "z-stack": "several planes",
    "continuous-z": "any z between them",
    "resume": "has dump and restore",
    "cuda": "tested on a GPU",
    "losses": "minimises whatever loss it is given",
    "patterns": "images lit by several LEDs at once",
    "masks": "leaves out pixels that are saturated or stuck",
    "calibrates": "improves the calibration itself",
}


@dataclass(frozen=True, kw_only=True)
class SolverRecord:
    """What a plugin says about one solver.

    Parameters
    ----------
    name
        Lower-case letters, digits and hyphens, a letter first: what users type to choose it.
    summary
        One line for the list of solvers.
    solver
        ``"module:Class"`` of a :class:`fpmtools.Solver`; imported when the solver is used, not before.
    reconstructions
        ``kind`` → ``"module:Class"`` of each :class:`fpmtools.Reconstruction` of its own that the solver returns.
        Solvers that return a ``PlaneStack`` leave it empty.
    capabilities
        Any words of ``CAPABILITIES``: ``2d``, ``z-stack``, ``continuous-z``, ``resume``, ``cuda``, ``losses``,
        ``patterns``, ``masks``, ``calibrates``.
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
        _check_version("solver", self.name, self.api_version)
        _need(_is_one_line(self.summary), "summary", self.summary, f"one line of at most {LINE_LIMIT} characters")
        _need(_is_class_path(self.solver), "solver", self.solver, "'module:Class'")
        kinds = self.reconstructions
        _need(isinstance(kinds, Mapping), "reconstructions", kinds, "a mapping of kind to 'module:Class'")
        for kind, path in kinds.items():
            _need(_is_name(kind) and _is_class_path(path), "reconstructions", {kind: path}, "{'kind': 'module:Class'}")
        for name in ("capabilities", "references"):
            _need_lines(name, getattr(self, name), "SolverRecord")
        object.__setattr__(self, "capabilities", frozenset(self.capabilities))
        object.__setattr__(self, "references", tuple(self.references))
        for word in sorted(self.capabilities - CAPABILITIES.keys()):
            raise unknown(f"capability of solver {self.name!r}:", word, CAPABILITIES)


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """What a plugin says about one number that can be computed of any reconstruction.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores, a letter first: the column's name in a comparison.
    summary
        One line that says what is measured.
    measure
        ``"module:function"``, called as ``function(case)`` with a :class:`fpmtools.evaluation.Case`; returns a number,
        or None where it has no meaning. Imported when the metric is used, not before.
    unit
        Such as ``dB``, ``rad``, ``µm``, ``bytes``; empty for a pure number.
    better
        ``"higher"`` or ``"lower"``; empty where neither is.
    label
        What people call it, in the head of a table's column; default: the name with spaces.
    rank
        Its place among the numbers of a table, smaller is further left; those from 100 on are shown on request only.
    spread
        Whether a table has its lowest and highest value over the repeats as well.
    needs_truth
        Whether it needs a data set whose truth is known.
    cost
        ``"cheap"``, or ``"solves"`` when it runs the solver again on part of the measurements.
    references
        Papers, with DOI.
    api_version
        The version of this contract that the plugin is written for.

    Raises
    ------
    SolverError
        When a value is not of this form.
    """

    name: str
    summary: str
    measure: str
    unit: str = ""
    better: str = ""
    label: str = ""
    rank: int = LAST
    spread: bool = False
    needs_truth: bool = False
    cost: str = "cheap"
    references: tuple[str, ...] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        named = _is_short(self.name) and re.fullmatch(r"[a-z][a-z0-9_]*", self.name)
        kind = "MetricRecord"
        _need(named, "name", self.name, "lower-case letters, digits and underscores, a letter first", kind)
        _check_version("metric", self.name, self.api_version, kind)
        _need(_is_one_line(self.summary), "summary", self.summary, f"one line of at most {LINE_LIMIT} characters", kind)
        _need(_is_class_path(self.measure), "measure", self.measure, "'module:function'", kind)
        _need(self.unit == "" or _is_one_line(self.unit), "unit", self.unit, "a str", kind)
        _need(self.better in ("higher", "lower", ""), "better", self.better, "'higher', 'lower' or ''", kind)
        _need(self.label == "" or _is_one_line(self.label), "label", self.label, "one line of text", kind)
        ranked = isinstance(self.rank, int) and not isinstance(self.rank, bool)
        _need(ranked, "rank", self.rank, "a whole number", kind)
        for name in ("spread", "needs_truth"):
            _need(isinstance(getattr(self, name), bool), name, getattr(self, name), "True or False", kind)
        _need(self.cost in ("cheap", "solves"), "cost", self.cost, "'cheap' or 'solves'", kind)
        _need_lines("references", self.references, kind)
        object.__setattr__(self, "references", tuple(self.references))


@dataclass(frozen=True, kw_only=True)
class ReaderRecord:
    """What a plugin says about one format that it reads measurements from.

    Parameters
    ----------
    name
        Lower-case letters, digits, ``-``, ``_`` and ``.``, a letter first: what users type to choose it.
    summary
        One line that says what such a file holds.
    read
        ``"module:function"``, called as ``function(path, wanted)`` with a :class:`pathlib.Path` and a
        :class:`fpmtools.Wanted`; returns a :class:`fpmtools.Recording`. Imported when the reader is used, not before.
    suffixes
        Ends of the names of such files, such as ``".czi"``; without any it is chosen by name only. Files that fpmtools
        itself reads are its own, whatever they are called.
    takes
        ``"key"``: there may be several arrays, of which ``wanted.key`` names one; ``"channel"``: images may be in
        colour, of which ``wanted.channel`` names a plane. What a reader does not take is refused before it is called.
    api_version
        The version of this contract that the plugin is written for.

    Raises
    ------
    SolverError
        When a value is not of this form.
    """

    name: str
    summary: str
    read: str
    suffixes: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        kind = "ReaderRecord"
        _check_format(self, "reader", kind, "read")
        _need_lines("takes", self.takes, kind)
        object.__setattr__(self, "takes", frozenset(self.takes))
        _need(self.takes <= {"key", "channel"}, "takes", sorted(self.takes), "any of 'key' and 'channel'", kind)


@dataclass(frozen=True, kw_only=True)
class WriterRecord:
    """What a plugin says about one format that it writes reconstructions to.

    Parameters
    ----------
    name
        Lower-case letters, digits, ``-``, ``_`` and ``.``, a letter first: what users type to choose it.
    summary
        One line that says what such a file holds.
    write
        ``"module:function"``, called as ``function(path, volume)`` with a :class:`pathlib.Path` where nothing is and a
        :class:`fpmtools.Volume`; returns None, or a list of lines that users must be told. Imported when the writer is
        used, not before. What it has written goes where it belongs once it is complete.
    suffixes
        Ends of the names of such files, such as ``".ome.tiff"``, of which the longest counts; without any it is chosen
        by name only.
    holds
        ``"complex"``: the field itself; ``"real"``: the channels that are asked for; ``"picture"``: what one looks at.
    stacks
        Whether a file holds several planes.
    colours
        Of a picture: whether it shows a result in several colours, by ``Volume.picture``.
    folder
        Where such a file is a folder: names of files in it any of which tells that it is one, and may be replaced.
    api_version
        The version of this contract that the plugin is written for.

    Raises
    ------
    SolverError
        When a value is not of this form.
    """

    name: str
    summary: str
    write: str
    suffixes: tuple[str, ...] = ()
    holds: str = "real"
    stacks: bool = True
    colours: bool = False
    folder: tuple[str, ...] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        kind = "WriterRecord"
        _check_format(self, "writer", kind, "write")
        _need(self.holds in HOLDS, "holds", self.holds, "'complex', 'real' or 'picture'", kind)
        _need(isinstance(self.stacks, bool), "stacks", self.stacks, "True or False", kind)
        _need(isinstance(self.colours, bool), "colours", self.colours, "True or False", kind)
        _need_lines("folder", self.folder, kind)
        object.__setattr__(self, "folder", tuple(self.folder))


AnyRecord: TypeAlias = SolverRecord | MetricRecord | ReaderRecord | WriterRecord
Record = TypeVar("Record", SolverRecord, MetricRecord, ReaderRecord, WriterRecord)


def to_data(record: AnyRecord, kind: type[AnyRecord]) -> dict[str, Any]:
    """The fields of a ``kind`` as JSON has them, whatever subclass the record is of; raises what that raises."""
    values = {f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(kind)}
    data: dict[str, Any] = json.loads(json.dumps(values))
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, frozenset) else value


def _check_format(record: ReaderRecord | WriterRecord, what: str, kind: str, call: str) -> None:
    """What the records of readers and writers have in common; ``call`` names the field with the function."""
    named = _is_short(record.name) and re.fullmatch(r"[a-z][a-z0-9._-]*", record.name)
    _need(named, "name", record.name, "lower-case letters, digits, '-', '_' and '.', a letter first", kind)
    _check_version(what, record.name, record.api_version, kind)
    summary, function = record.summary, getattr(record, call)
    _need(_is_one_line(summary), "summary", summary, f"one line of at most {LINE_LIMIT} characters", kind)
    _need(_is_class_path(function), call, function, "'module:function'", kind)
    _need_lines("suffixes", record.suffixes, kind)
    for suffix in record.suffixes:
        _need(re.fullmatch(r"(\.[a-z0-9_-]+)+", suffix), "suffixes", suffix, "such as '.ome.tiff', in lower case", kind)
    object.__setattr__(record, "suffixes", tuple(record.suffixes))


def _check_version(what: str, name: str, version: int, kind: str = "SolverRecord") -> None:
    if isinstance(version, int) and version > API_VERSION:
        raise SolverError(
            f"{what} {name!r} is written for version {version} of the {what} interface and this "
            f"fpmtools has version {API_VERSION}: upgrade fpmtools"
        )
    _need(version == API_VERSION, "api_version", version, str(API_VERSION), kind)


def _need(valid: object, name: str, value: object, form: str, kind: str = "SolverRecord") -> None:
    if not valid:
        shown = f"'{printable(value, 80)}'" if isinstance(value, str) else printable(value, 80)
        raise SolverError(f"{kind}: {name} {shown} must be {form}")


def _need_lines(name: str, lines: object, kind: str) -> None:
    several = isinstance(lines, Iterable) and not isinstance(lines, str) and all(map(_is_one_line, lines))
    _need(several, name, lines, "a collection of str", kind)


def _is_one_line(value: object) -> bool:
    """Text that a terminal shows as it is."""
    if not isinstance(value, str) or not value.strip() or len(value) > LINE_LIMIT:
        return False
    return all(c.isprintable() or c == "\N{NO-BREAK SPACE}" for c in value)


def _is_name(value: object) -> bool:
    return _is_short(value) and re.fullmatch(r"[a-z][a-z0-9-]*", str(value)) is not None


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= NAME_LIMIT


def _is_class_path(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value) is not None
