"""From what a user calls a data set, or its LEDs, to the right reader: paths, known names, kinds of file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpmtools import leds, registry
from fpmtools.errors import DataError, OptionError, nearest, printable, unknown
from fpmtools.formats.manifest import ManifestEntry
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.formats.settings import Settings
from fpmtools.leds import Board
from fpmtools.records import ReaderRecord
from fpmtools.registry import Supplied


def read(source: str | Path, settings: Settings, images: int | None) -> Recording:
    """What is called ``source``; ``images`` is how many there should be, where that is known."""
    from fpmtools import catalogue

    if isinstance(source, str) and source.startswith(catalogue.PREFIX):
        return Recording.of(catalogue.make(source))
    if entry := _entry(source):
        return _read_entry(entry, settings, images)
    return _read(_existing(source), settings, images)


def board(given: Any, files: Sequence[str] | None = None, what: str = "leds") -> Board:
    """The LED board that the user gives; messages call it ``what``.

    A board, a description, its JSON text, direction sines [led, (x, y)], a CSV or JSON file, or the name of a manifest
    entry that was taken with the same board. Raises :class:`fpmtools.leds.NamesNeeded` where it depends on the names
    of the image ``files`` and they are not known yet.
    """
    if isinstance(given, Board):
        return given
    if isinstance(given, Mapping):
        return leds.from_mapping(given, what, files)
    if not isinstance(given, str | Path):
        return leds.from_mapping({"na": given}, what)
    if str(given).lstrip().startswith("{"):
        return leds.from_json(str(given), what, files)
    if (entry := _entry(given)) is not None and entry.leds:
        return leds.from_mapping(entry.leds, entry.name)
    if (path := _found(given)) is not None and path.is_file():
        return leds.from_file(path, files)
    raise _no_leds(str(given))


def _no_leds(given: str) -> DataError | OptionError:
    from fpmtools.formats import manifest

    near = nearest(given, [entry.name for entry in manifest.entries() if entry.leds], likeness=0.75)
    if near is not None:
        return OptionError(f"leds {printable(given)}: no such file, nor data set: did you mean {near!r}?")
    return DataError(
        f"leds {printable(given)}: no such file, nor a data set whose LED positions are known; a rule is JSON, such as "
        '{"rule": "raster", "nx": 9, "ny": 9, "pitch_mm": 4, "height_mm": 90}'
    )


def _entry(source: object) -> ManifestEntry | None:
    """The manifest's entry of this name, if there is one."""
    from fpmtools.formats import manifest

    return next((entry for entry in manifest.entries() if entry.name == source), None)


def _read_entry(entry: ManifestEntry, settings: Settings, count: int | None) -> Recording:
    """The files of a manifest entry, with what the manifest adds to them."""
    from fpmtools.formats import images, manifest

    files = manifest.local_files(entry)
    if files is None:
        raise DataError(
            f"{entry.name}: its files are not in {manifest.data_dir() / entry.folder}; get them with: "
            f"fpmtools data fetch {entry.name}"
        )
    if (settings.format or entry.reader) == "images":
        recording = images.read(files[0].parent, settings.channel, files)
    else:
        recording = _read(files[0], replace(settings, format=settings.format or entry.reader), count)
    return replace(
        recording,
        name=entry.name,
        leds=leds.from_mapping(entry.leds, entry.name) if entry.leds else recording.leds,
        optics={**recording.optics, **entry.optics},
        defocus_um=recording.defocus_um if entry.defocus_um is None else entry.defocus_um,
        dark_level=entry.dark_level or None,
        provenance={**recording.provenance, "manifest_entry": entry.name},
    )


def _read(path: Path, settings: Settings, count: int | None) -> Recording:
    """Let the right reader read ``path``."""
    if not (path.is_dir() or path.is_file()):
        raise DataError(f"{path}: not a regular file or folder")
    reader = _reader_for(path) if settings.format is None else reader_named(settings.format)
    takes = reader.record.takes
    if settings.channel is not None and "channel" not in takes:
        raise OptionError(f"{path}: has no colour channels; leave out channel {settings.channel!r}")
    if settings.key is not None and "key" not in takes:
        raise OptionError(f"{path}: holds no arrays with names; leave out the key {printable(settings.key)!r}")
    wanted = Wanted(settings.format, settings.key, settings.channel, count)
    try:
        found: object = registry.format_function(reader)(path, wanted)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not isinstance(found, Recording):
        raise DataError(f"reader {reader.record.name!r} of {reader} gave a {type(found).__name__}, not a Recording")
    return found


def reader_named(name: str) -> Supplied[ReaderRecord]:
    """The reader of this name; those of fpmtools first. Raises :class:`OptionError` when there is none."""
    for every in (registry.built_in_readers, registry.readers):
        for reader in every():
            if reader.record.name == name:
                return reader
    raise unknown("format", name, [reader.record.name for reader in registry.readers()])


def _reader_for(path: Path) -> Supplied[ReaderRecord]:
    """The reader of fpmtools that the content asks for, or the one of another package that the suffix does."""
    if (name := _sniff(path)) is not None:
        return reader_named(name)
    if path.suffix:
        fits = [(len(s), r) for r in registry.readers() for s in r.record.suffixes if path.name.lower().endswith(s)]
        if fits:
            return max(fits, key=lambda fit: fit[0])[1]
    if path.is_dir():
        return reader_named("images")
    known = "; ".join(reader.record.summary for reader in registry.readers())
    raise DataError(f"{path}: not a format that fpmtools reads: {known}")


def _existing(source: str | Path) -> Path:
    if (path := _found(source)) is not None:
        return path
    from fpmtools import catalogue
    from fpmtools.formats import manifest

    name, samples = str(source), catalogue.entries()
    near = nearest(name, [*(entry.name for entry in manifest.entries()), *samples], likeness=0.75)
    if f"{catalogue.PREFIX}{name}" in samples:
        near = f"{catalogue.PREFIX}{name}"
    if near is not None and os.sep not in name:
        raise OptionError(f"{printable(name)}: no such file or folder, nor data set: did you mean {near!r}?")
    raise DataError(f"{printable(name)}: no such file or folder")


def _found(source: str | Path) -> Path | None:
    """The path, if there is something."""
    path = Path(os.path.expanduser(source))
    return path if os.path.exists(path) else None


def _sniff(path: Path) -> str | None:
    """Which of fpmtools' readers the content is for; None where it is for none, or a folder of who knows what."""
    from fpmtools.formats import arrays, images, matfile, ome_tiff, ome_zarr_reader

    if path.is_dir():
        return "ome-zarr" if ome_zarr_reader.is_zarr(path) else None
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise DataError(f"{path}: is empty")
    if images.is_image(head):
        return "ome-tiff" if ome_tiff.is_ome(path, head) else "images"
    if matfile.is_matlab(head) or arrays.is_numpy(head):
        return "array"
    return "native" if len(head) > 8 and head[8:9] == b"{" else None  # a safetensors header, after its length
