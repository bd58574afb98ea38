"""Who offers plugins: the entry points of the group, read distribution by distribution, any of which may be damaged."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Generic

import fpmtools
from fpmtools.errors import FpmError, printable
from fpmtools.records import Record

GROUP = "fpmtools"
POINTS_LIMIT = 1 << 20  # characters of an entry_points.txt
HEADER_LIMIT = 1 << 16  # characters at the beginning of a METADATA
ENTRY_LIMIT = 100  # entry points of one distribution


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
    """What is wrong with a plugin, or with one of its records; ``message`` is one line that says what."""

    entry_point: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f"plugin '{self.entry_point}' of {self.distribution}: {self.message}"


@dataclass(frozen=True)
class Entry:
    """An entry point, and the distribution that has it."""

    name: str
    value: str
    distribution: str
    version: str

    @property
    def built_in(self) -> bool:
        """Whether fpmtools itself has it."""
        return self.distribution == GROUP

    @property
    def rank(self) -> tuple[bool, str, str]:
        """Who comes first where two want one name: the built-ins, then the rest in alphabetical order."""
        return not self.built_in, self.distribution, self.name

    def fault(self, message: object) -> Fault:
        """A fault of its plugin."""
        return Fault(self.name, self.distribution, str(message))

    def supplies(self, record: Record) -> Supplied[Record]:
        """A record that it announces."""
        return Supplied(record, self.distribution, self.version, self.name)


@functools.cache
def entries() -> tuple[tuple[Entry, ...], tuple[Fault, ...]]:
    """All entry points of the group, built-ins first, and what is damaged.

    A distribution that is seen twice (editable, or twice on the path) counts where it is seen first, as for imports; of
    several that call themselves fpmtools the one of this version counts.
    """
    seen: list[tuple[str, str, list[Entry]]] = []
    broken: list[Fault] = []
    for found in metadata.distributions():
        folder = str(getattr(found, "_path", "?"))
        name, version = _named_by(folder), ""
        try:
            text = found.read_text("entry_points.txt") or ""
            if GROUP not in text:
                continue
            name, version = _identity(found)
            here, faults = _points(text, name, version)
        except Exception as error:
            here, faults = [], [Fault("?", name, f"damaged metadata in {printable(folder, 300)}: {one_line(error)}")]
        seen.append((name, version, here))
        broken += faults
    seen.sort(key=lambda one: one[0] == GROUP and one[1] != fpmtools.__version__)
    first: dict[str, list[Entry]] = {}
    for name, _, here in seen:
        if here:
            first.setdefault(name, here)
    return tuple(sorted((e for some in first.values() for e in some), key=lambda e: e.rank)), tuple(broken)


def one_line(error: BaseException) -> str:
    """Kind and message of any exception, also of one whose ``__str__`` is broken."""
    try:
        text = printable(" ".join(str(error).split()), 300)
    except BaseException:
        text = ""
    if isinstance(error, FpmError):
        return text
    kind = printable(type(error).__name__, 80)
    return f"{kind}: {text}" if text else kind


def _identity(found: metadata.Distribution) -> tuple[str, str]:
    """Name, as package indexes write it, and version."""
    text = found.read_text("METADATA") or found.read_text("PKG-INFO")
    if not text:
        raise ValueError("it has no METADATA")
    header = dict(re.findall(r"^(Name|Version): *(.+)$", text[:HEADER_LIMIT].partition("\n\n")[0], re.MULTILINE))
    if "Name" not in header:
        raise ValueError("its METADATA has no name")
    return printable(re.sub(r"[-_.]+", "-", header["Name"]).lower(), 80), printable(header.get("Version", "?"), 30)


def _named_by(folder: str) -> str:
    """The name of a distribution whose metadata cannot be read."""
    found = re.search(r"([^/\\]+)-[^-/\\]+\.(dist|egg)-info$", folder)
    return printable(re.sub(r"[-_.]+", "-", found[1]).lower(), 80) if found else "?"


def _points(text: str, distribution: str, version: str) -> tuple[list[Entry], list[Fault]]:
    """The group's entry points in an ``entry_points.txt``."""
    if len(text) > POINTS_LIMIT:
        size = f"{len(text) / 1e6:.0f} MB; at most {POINTS_LIMIT / 1e6:.0f} MB are read"
        return [], [Fault("?", distribution, f"its entry_points.txt has {size}")]
    lines = list(_lines_of_group(text))
    good: list[Entry] = []
    broken: list[Fault] = []
    for line in lines[:ENTRY_LIMIT]:
        name, equals, value = (part.strip() for part in line.partition("="))
        if name and equals and value:
            good.append(Entry(printable(name, 80), value, distribution, version))
        else:
            broken.append(
                Fault("?", distribution, f"damaged entry_points.txt: '{printable(line, 80)}' is not 'name = module'")
            )
    if len(lines) > ENTRY_LIMIT:
        message = f"has {len(lines)} entry points; only the first {ENTRY_LIMIT} are looked at"
        broken.append(Fault("?", distribution, message))
    return good, broken


def _lines_of_group(text: str) -> Iterator[str]:
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == GROUP and line and line[0] not in "#;":
            yield line
