"""From paths to what can be shown: results, truths and raw images, and what of it could not be found, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fpmtools import columns, metrics, registry
from fpmtools.colour.result import CHANNELS_FOLDER, ColourReconstruction
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.opening import Solved, compared, kind_of
from fpmtools.reconstruction import Reconstruction
from fpmtools.runs.running import load
from fpmtools.runs.spec import DataSpec
from fpmtools.viewer.colours import ColourSource
from fpmtools.viewer.regions import Kept
from fpmtools.viewer.sources import FieldSource, ImageSource, Lights, Source


@dataclass
class Opened:
    """What was found, in the order it is offered in; ``notes`` say what was not, one line each."""

    sources: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def opened(paths: Sequence[str], reading: Mapping[str, Any] | None = None) -> Opened:
    """Open runs, results, comparisons and data sets; ``reading`` says how data that are named here are read.

    Raises :class:`DataError` or another :class:`FpmError` where one of ``paths`` cannot be opened. What belongs to a
    result and is missing, such as its raw images, is noted.
    """
    found = Opened()
    desk = _Desk(found, Kept(), dict(reading or {}))
    for path in paths:
        desk.open(path)
    # Results first, then what they are held against.
    found.sources.sort(key=lambda source: (source.kind != "field", getattr(source, "z_range", None) is None))
    return found


class _Desk:
    def __init__(self, found: Opened, kept: Kept, reading: dict[str, Any]) -> None:
        self.found, self.kept, self.reading = found, kept, reading
        self._data: dict[tuple[Any, ...], Dataset] = {}
        self._images: dict[int, ImageSource] = {}  # by the id of their data

    def open(self, path: str) -> None:
        kind = kind_of(path)
        if kind == "comparison":
            self.comparison(Path(path))
        elif kind == "result":
            self.run(Solved(Path(path), Path(path).stem), images=False)
        elif kind == "run":
            solved = Solved.at(Path(path))
            solver = solved.record.get("solver")
            called = isinstance(solver, str) and solver != solved.name
            self.run(replace(solved, name=f"{solver} ({solved.name})") if called else solved)
        else:
            self.show_data(DataSpec(path, **self.reading))

    def comparison(self, folder: Path) -> None:
        before = len(self.found.sources)
        results, notes = compared(folder)
        self.found.notes += notes
        for solved in results:
            try:
                self.run(solved)
            except FpmError as error:
                self.found.notes.append(f"{solved.name}: {error}")
        if len(self.found.sources) == before:
            raise DataError(f"{folder}: this comparison has no result that can be opened")

    def run(self, solved: Solved, images: bool = True) -> None:
        """A run's result, with the ``images`` that it was made of."""
        result = solved.open()  # without which its images are not offered either
        if isinstance(result, ColourReconstruction):
            self.colours(solved, result, images)
        else:
            self.result(solved, result, self._data_of(solved) if images else None)

    def colours(self, solved: Solved, result: ColourReconstruction, images: bool) -> None:
        """The picture, and each colour on the grid of all, with its own images."""
        facts = {**_facts(result, solved), **{f"{name}, moved": moved for name, moved in _moves(result).items()}}
        about = {"corner_um": solved.corner_um, "facts": facts}
        picture = ColourSource.of(result, self._free(solved.name), self.kept, **about)
        self.found.sources.append(picture)
        for name in result.channels:
            assert result.folder is not None  # as it was opened from a file
            part = Solved.at(result.folder / CHANNELS_FOLDER / name, f"{solved.name} · {name}")
            shown = self.result(part, result.channel(name), self._data_of(part, f" · {name}") if images else None)
            if name == result.reference:
                picture.raw, picture.lights = shown.raw, shown.lights

    def result(self, solved: Solved, result: Reconstruction, data: Dataset | None) -> FieldSource:
        name = solved.name
        low, high = result.grid.pixel_um
        if abs(low / high - 1) > 0.01:
            self.found.notes.append(f"{name}: its pixels are {low:.4g} × {high:.4g} µm (y, x), and are shown square")
        about: dict[str, Any] = {"lights": _lights(result, data, solved), "facts": _facts(result, solved)}
        about |= {"raw": None if data is None else self._images[id(data)], "corner_um": solved.corner_um}
        source = FieldSource.of(result, self._free(name), self.kept, **about)
        self.found.sources.append(source)
        return source

    def show_data(self, spec: DataSpec) -> None:
        """A data set that the user has named, its truth, and nothing else."""
        self._offer(load(spec), spec)

    def _data_of(self, solved: Solved, suffix: str = "") -> Dataset | None:
        """The data of a run, offered once for all its runs; a note where they are not there or are others by now."""
        try:
            spec = solved.data
            if known := self._data.get(_key(spec)):
                return known
            data = solved.dataset()
        except FpmError as error:
            if (note := f"no raw images: {error}") not in self.found.notes:
                self.found.notes.append(note)
            return None
        self._offer(data, spec, suffix)
        return data

    def _offer(self, data: Dataset, spec: DataSpec, suffix: str = "") -> None:
        self._data[_key(spec)] = data
        known, optics = data.calibration, data.optics
        lights = Lights(known.image_na, known.used, optics.na, optics.wavelength_um)
        facts = {k: v for k, v in data.facts().items() if k != "truth"}
        corner_um = (data.corner[0] * optics.pixel_um, data.corner[1] * optics.pixel_um)
        place: dict[str, Any] = {"lights": lights, "corner_um": corner_um}
        if not suffix and any(source.kind == "images" for source in self.found.sources):
            suffix = f" · {data.name}"
        images = ImageSource.of(data, self._free(f"raw images{suffix}"), self.kept, facts=facts, **place)
        self.found.sources.append(images)
        self._images[id(data)] = images
        if data.truth is not None:
            pixel_um = data.extent_um[1] / data.truth.field.shape[1]
            limited = replace(data.truth, field=metrics.band_limit(data.truth.field, optics, data.na, pixel_um))
            about = {"truth": str(data.truth).removeprefix("Truth: "), "band": "limited to what the LEDs cover"}
            name = self._free(f"truth{suffix}")
            truth = FieldSource.of_truth(limited, name, data.extent_um, self.kept, facts=about, **place)
            self.found.sources.append(truth)

    def _free(self, name: str) -> str:
        """``name``, numbered where it is taken."""
        taken = {source.name for source in self.found.sources}
        return next(n for n in _numbered(name) if n not in taken)


def _numbered(name: str) -> Iterator[str]:
    yield name
    count = 2
    while True:
        yield f"{name} {count}"
        count += 1


def _key(spec: DataSpec) -> tuple[Any, ...]:
    return (os.path.realpath(spec.source), spec.roi, spec.key, spec.channel, spec.bayer, spec.leds_use)


def _lights(result: Reconstruction, data: Dataset | None, solved: Solved) -> Lights | None:
    """Where a result's light came from: as it was solved with; the objective's NA from the data or the run's record."""
    known = result.calibration or (None if data is None else data.calibration)
    if known is None:
        return None
    optics = solved.said("data", "optics")
    numbers = data.optics.to_dict() if data is not None else optics if isinstance(optics, dict) else {}
    wavelength = numbers.get("wavelength_um") or result.metadata.get("wavelength_um")
    na = numbers.get("na")
    return Lights(
        known.image_na,
        known.used,
        float(na) if isinstance(na, int | float) else None,
        float(wavelength) if isinstance(wavelength, int | float) else None,
    )


def _facts(result: Reconstruction, solved: Solved) -> dict[str, str]:
    """What the result is, and the numbers that its run has measured."""
    facts = {"kind": result.heading(), **result.facts()}
    known = columns.of(supplied.record for supplied in registry.built_in_metrics())
    for key, form in (("psnr", "{:.2f} dB"), ("ssim", "{:.3f}")):
        value = solved.said("metrics", key)
        if isinstance(value, int | float):
            facts[known[key].label] = form.format(value)
    return facts


def _moves(result: ColourReconstruction) -> dict[str, str]:
    """What brought each colour onto the reference: (x, y) in pixels, and a scale where there is one."""
    found = {}
    for name, about in result.parts.items():
        (y, x), scale = about.place.shift, about.place.scale
        grown = f", scaled by {1 + scale:.5f}" if scale else ""
        found[name] = "not" if name == result.reference else f"{x:+.2f}, {y:+.2f} pixels (x, y){grown}"
    return found


def described(paths: Sequence[str]) -> str:
    """What is looked at, for the title of the page."""
    names = [os.path.basename(os.path.abspath(path)) if os.path.exists(path) else path for path in paths]
    return " | ".join(names)


def checked(paths: Sequence[str]) -> None:
    """Raise :class:`OptionError` where there are none, or too many to look at beside each other."""
    if not 1 <= len(paths) <= 16:
        raise OptionError(f"view takes 1 to 16 paths, got {len(paths)}")
