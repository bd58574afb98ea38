"""What is compared: solvers with their options, as users write them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fpmtools.errors import OptionError, expect

CALIBRATED = {"none": "as given", "auto": "calibrated"}  # what a table says of the instrument, where both are compared


@dataclass(frozen=True)
class Spec:
    """A solver with options, written ``name`` or ``name:key=value:key=value``; ``capabilities`` where known.

    ``calibrate``: what is fitted of the instrument before, where that is one of the things that are compared.
    """

    label: str
    solver: str
    options: tuple[tuple[str, str], ...] = ()
    capabilities: frozenset[str] = frozenset()
    calibrate: str = ""

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read ``inr:preset=paper:epochs=5``; raises :class:`OptionError` when it is not of this form."""
        expect(text, str, "a solver", "a name with options, such as 'inr:preset=paper'")
        solver, *parts = (part.strip() for part in text.split(":"))
        pairs = [tuple(part.partition("=")[::2]) for part in parts]
        if "=" in solver:
            raise OptionError(
                f"{text!r} names no solver; options follow it after colons, as in inr:preset=paper:epochs=5"
            )
        if not solver or not all(key and "=" in part for part, (key, _) in zip(parts, pairs, strict=True)):
            raise OptionError(f"{text!r} is not NAME or NAME:key=value:key=value")
        return cls(text.strip(), solver, tuple((key, value) for key, value in pairs))

    @property
    def folder(self) -> str:
        """The label as a file name."""
        return slug(self.label)


def in_each_way(contenders: Iterable[Spec], calibrate: Sequence[str]) -> list[Spec]:
    """The solvers with the instrument in each of several ways."""
    if len(calibrate) == 1:
        return [replace(one, calibrate=calibrate[0]) for one in contenders]
    return [
        replace(one, label=f"{one.label}, {CALIBRATED[way]}", calibrate=way) for one in contenders for way in calibrate
    ]


def slug(name: str) -> str:
    """A name as a file name."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", name)


def check_solvers(solvers: Iterable[str]) -> list[Spec]:
    """Parse the solvers and check their names and options; a plugin that is broken is left for its run to report.

    Solvers of other packages are looked at in a process of their own, which importing them may end.
    """
    specs = [Spec.parse(text) for text in solvers]
    if not specs:
        raise OptionError("name at least one solver to compare")
    seen: set[str] = set()
    for spec in specs:
        if spec.folder in seen:
            raise OptionError(f"solver {spec.label!r} is named twice; for several runs of each use repeats")
        seen.add(spec.folder)
    return [replace(spec, capabilities=can) for spec, can in zip(specs, _capabilities(tuple(specs)), strict=True)]


@functools.cache
def _capabilities(specs: tuple[Spec, ...]) -> list[frozenset[str]]:
    """What each solver can do, by its own account, once its name and options are checked; empty where it is broken."""
    from fpmtools import registry

    found = registry.describe_solvers((spec.solver, dict(spec.options)) for spec in specs)
    for told in found:
        if isinstance(told, OptionError):
            raise told
    return [t.supplied.record.capabilities if isinstance(t, registry.Description) else frozenset() for t in found]
