"""How a data set is to be read: what a command, a call or a ``microscope.yaml`` says, and which of them counts."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpmtools.errors import DataError, FpmError, OptionError, printable, unknown
from fpmtools.formats import numbers

if TYPE_CHECKING:
    from fpmtools.formats.recording import Recording
    from fpmtools.leds import Board

_FILE_BYTES = 1 << 20
_PATHS = ("leds", "dark", "patterns")  # of a config's values, relative to its folder
_SAME_NA, _SAME = 1e-4, 1e-5  # LED positions, absolute, and numbers, relative, that count as the same


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`fpmtools.load` that say how to read; None, or nothing, where nothing is said."""

    format: str | None = None
    key: str | None = None
    channel: str | int | None = None
    bayer: str | None = None
    roi: Any = None
    optics: Mapping[str, float] = field(default_factory=dict)
    leds: Any = None
    axes: str | None = None
    patterns: Any = None
    leds_use: Any = None
    max_na: float | None = None
    dark_level: float | None = None
    dark: Any = None
    amplitudes: bool | None = None
    defocus_um: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "optics", numbers.optics_numbers(self.optics))
        for name in ("max_na", "dark_level", "defocus_um"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, numbers.number(name, value))
        for name in ("max_na", "dark_level"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise OptionError(f"{name} must be 0 or a positive number, got {value:g}")
        for name in ("format", "key", "axes", "bayer"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise OptionError(f"{name} must be text, got {printable(value)}")
        if not isinstance(self.amplitudes, bool | None):
            raise OptionError(f"amplitudes must be true or false, got {printable(self.amplitudes)}")
        if self.roi is not None:
            object.__setattr__(self, "roi", numbers.box(self.roi))
        if self.dark is not None and self.dark_level is not None:
            raise OptionError("dark (an image) and dark_level (a number) say the same: give one of them")

    def over(self, other: Settings) -> Settings:
        """What is said here, and for the rest what ``other`` says."""
        said = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "optics"}
        said = {name: value for name, value in said.items() if value is not None}
        if {"dark", "dark_level"} & said.keys():
            other = replace(other, dark=None, dark_level=None)
        return replace(other, optics=numbers.merge(other.optics, self.optics), **said)


NAMES = tuple(entry.name for entry in fields(Settings))


def read(path: str | Path) -> Settings:
    """The settings that a YAML file holds under the names of :class:`Settings`; its paths are relative to its folder.

    Raises :class:`DataError` when it cannot be read, :class:`OptionError` with the nearest name for an unknown key.
    """
    path = Path(path)
    document = _parse(path)
    for key in document:
        if key in numbers.OPTICS:
            raise OptionError(f"{path}: {key} belongs below optics, as in 'optics: {{{key}: {document[key]}}}'")
        if key not in NAMES:
            raise OptionError(f"{path}: {unknown('key', str(key), NAMES)}")
    if not isinstance(document.get("optics", {}), dict):
        raise OptionError(f"{path}: optics must hold names with numbers, such as {{wavelength_um: 0.523}}")
    for name in _PATHS:
        value = document.get(name)
        if isinstance(value, str) and (path.parent / os.path.expanduser(value)).exists():
            document[name] = str((path.parent / os.path.expanduser(value)).resolve())
    try:
        return Settings(**document)
    except FpmError as error:
        raise type(error)(f"{path}: {error}") from error


def _parse(path: Path) -> dict[str, Any]:
    """Names with values of a YAML file: no tags, no anchors, each name once, 1 MiB at most."""
    import yaml

    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: cannot be read (not a file)")
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error})") from error
    if len(text) > _FILE_BYTES:
        raise DataError(f"{path}: too large for a description of a microscope ({_FILE_BYTES >> 20} MiB at most)")

    class Loader(yaml.SafeLoader):
        """What YAML allows and a description does not need is a mistake."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not allowed")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            keys = [getattr(key, "value", None) for key, _ in node.value]
            if twice := [key for key in keys if isinstance(key, str) and keys.count(key) > 1]:
                raise yaml.YAMLError(f"{twice[0]!r} is given twice")
            return super().construct_mapping(node, deep)

    try:
        document = Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: not valid YAML ({printable(' '.join(str(error).split()))})") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise DataError(f"{path}: must hold names with values, such as 'max_na: 0.3'")
    return document


def check_facts(
    file: str, recording: Recording, where: str, config: Settings, asked: Settings, board: Board | None
) -> None:
    """Raise :class:`OptionError` when the ``file`` says something else than the config at ``where``.

    What was ``asked`` for wins over both, and is not looked at. ``board``: the LEDs that count, given or the config's.
    """
    theirs = numbers.combine(recording.optics)
    if {"camera_pixel_um", "magnification"} <= theirs.keys() and theirs["magnification"]:
        theirs[numbers.PIXEL] = theirs["camera_pixel_um"] / theirs["magnification"]
    for name, value in config.optics.items():
        if name in theirs and name not in numbers.settled(asked.optics) and _differ(value, theirs[name]):
            raise _contradiction(f"optics {name}", value, theirs[name], where, file)
    for name in ("defocus_um", "dark_level"):
        mine, other = getattr(config, name), getattr(recording, name)
        if getattr(asked, name) is None and None not in (mine, other) and _differ(mine, other):
            raise _contradiction(name, mine, other, where, file)
    if recording.dark is not None and asked.dark is None and asked.dark_level is None:
        if config.dark is not None:
            raise _contradiction("dark", config.dark, recording.dark_name, where, file)
        if config.dark_level is not None:
            raise _contradiction("dark_level", config.dark_level, recording.dark_name, where, file)
    if board is not None and asked.leds is None and recording.known_na is not None:
        _compare_leds(board.na, recording.known_na, where, file)


def _compare_leds(mine: Any, other: Any, where: str, file: str) -> None:
    if len(mine) != len(other):
        raise _contradiction("leds", f"{len(mine)} positions", f"{len(other)} positions", where, file)
    distance = np.linalg.norm(mine - other, axis=1)
    if (led := int(distance.argmax())) >= 0 and distance[led] > _SAME_NA:
        here, there = (f"LED {led} at NA ({x:.4g}, {y:.4g})" for x, y in (mine[led], other[led]))
        raise _contradiction("leds", here, there, where, file)


def _differ(mine: float, other: float) -> bool:
    return bool(abs(mine - other) > _SAME * max(abs(mine), abs(other)))


def _contradiction(name: str, mine: Any, other: Any, where: str, file: str) -> OptionError:
    mine, other = (f"{value:g}" if isinstance(value, float) else printable(value) for value in (mine, other))
    return OptionError(
        f"{name} is {mine} in {printable(where)}, and {other} in {printable(file)}: correct one of them, or give the "
        f"option {name.split()[0]}, which counts more than both"
    )
