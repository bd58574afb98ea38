"""Reading measurements: any supported file, folder or known name becomes a validated :class:`Dataset`.

One reader per file: ``native`` (the project's own), ``fpm_inr`` and ``uconn`` (MATLAB), ``images`` (TIFF and PNG).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError, OptionError, nearest, printable, unknown
from fpmtools.images import Images

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset
    from fpmtools.formats.manifest import ManifestEntry
    from fpmtools.formats.recording import Recording

READERS = {
    "native": "the project's own .safetensors file",
    "fpm_inr": "MATLAB v5 or v7.3 with I_low, na_calib, na_cal, mag, dpix_c, or with I alone (FPM-INR, APIC)",
    "uconn": "MATLAB with imlow_HDR, the amplitude, and the LED board's offsets (UConn)",
    "images": "a folder of TIFF or PNG images in natural order, or one file with a page per LED",
}


def load(
    source: str | Path,
    *,
    format: str | None = None,  # what everyone calls it, even if it hides a builtin
    roi: Sequence[int] | None = None,
    channel: str | int | None = None,
    optics: Mapping[str, float] | None = None,
    leds: str | Path | Mapping[str, Any] | ArrayLike | None = None,
    dark_level: float | None = None,
    defocus_um: float | None = None,
) -> Dataset:
    """Read measurements.

    Parameters
    ----------
    source
        A file or folder, the name of a data set in the manifest (``fpmtools data list``) that is on this machine, or a
        simulated sample (``"sim:tilted"``, ``"sim:bars+noise@96x128"``, see :mod:`fpmtools.catalogue`). A name that is
        also a path here means the manifest's; write ``./name`` for the path.
    format
        One of :data:`READERS`; found out from the content when it is not given.
    roi
        (y, x, height, width) in camera pixels.
    channel
        Colour plane of colour images: r, g, b or 0, 1, 2.
    optics
        Numbers of the microscope that are not in the file, or that replace those in it: ``wavelength_um``, ``na``,
        ``magnification``, ``camera_pixel_um``, ``medium_index``.
    leds
        LED positions that are not in the file, or replace those in it: a CSV or JSON file, a description or its JSON
        text (see :func:`fpmtools.leds.from_mapping`), direction sines [led, (x, y)], or the name of a manifest entry
        taken with the same board.
    dark_level
        Camera offset in the images' units, subtracted from every pixel (negative results become 0); default: what
        the manifest says, else 0.
    defocus_um
        Where the sample is known to be, if the file does not tell.

    Returns
    -------
    Dataset
        Intensities float32 [led, y, x] in the order recorded, with LED signs such that +na/λ is each image's place in
        the object spectrum; validated.

    Raises
    ------
    DataError
        When the source cannot be read, or what it holds cannot be used.
    OpticsError
        When a number of the microscope is missing or impossible.
    OptionError
        When an argument is unknown or does not fit.
    """
    from fpmtools import catalogue
    from fpmtools.formats.recording import optics_numbers

    overrides = optics_numbers(optics)
    if format is not None and format not in READERS:
        raise unknown("format", format, READERS)
    if isinstance(source, str) and source.startswith(catalogue.PREFIX):
        recording = _simulated(source)
    elif entry := _entry(source):
        recording = _read_entry(entry, format, channel)
    else:
        recording = _read(_existing(source), format, channel)
    if leds is not None:
        recording = replace(recording, na=_led_directions(leds), calibration=None)
    if defocus_um is not None:
        recording = replace(recording, defocus_um=_number("defocus_um", defocus_um))
    recording = replace(recording, provenance={"source": str(source), **recording.provenance})
    dataset = recording.dataset(overrides)
    if roi is not None:
        dataset = dataset.crop(*_box(roi))
    return _finish(dataset, recording.dark_level if dark_level is None else dark_level)


def _finish(dataset: Dataset, dark_level: float) -> Dataset:
    """Validated float32 intensities without the dark level, and a note when pixels were saturated."""
    from fpmtools.formats import saturation

    dark_level = _number("dark_level", dark_level)
    if dark_level < 0:
        raise OptionError(f"dark_level must be 0 or a positive number, got {dark_level:g}")
    if np.iscomplexobj(dataset.images[0]):
        raise DataError(f"{dataset.name}: the images are complex; intensities are real: are these fields or spectra?")
    notes: dict[str, Any] = {}
    if found := saturation.find(dataset.images.stored()):
        notes["warnings"] = [str(found)]
    intensities = np.asarray(dataset.images.read(), dtype=np.float32)
    if dark_level:
        dataset.with_images(intensities).validate()  # what is negative now would become 0
        intensities = np.maximum(intensities - np.float32(dark_level), 0)
        notes["dark_level"] = dark_level
    return replace(dataset, images=Images.of(intensities), provenance={**dataset.provenance, **notes}).validate()


def _number(name: str, value: object) -> float:
    """A user's number, finite."""
    try:
        number = float(value)  # type: ignore[arg-type]
        if np.isfinite(number):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise OptionError(f"{name} must be a finite number, got {printable(value)!r}")


def _box(roi: Sequence[int]) -> tuple[int, int, int, int]:
    try:
        y, x, height, width = (int(number) for number in roi)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"roi must be y, x, height, width in pixels, got {printable(roi)}") from None
    return y, x, height, width


def _simulated(name: str) -> Recording:
    from fpmtools import catalogue
    from fpmtools.formats.recording import Recording

    return Recording.of(catalogue.make(name))


def _entry(source: object) -> ManifestEntry | None:
    """The manifest's entry of this name, if there is one."""
    from fpmtools.formats import manifest

    return next((entry for entry in manifest.entries() if entry.name == source), None)


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


def _read_entry(entry: ManifestEntry, format: str | None, channel: str | int | None) -> Recording:
    """The files of a manifest entry, with what the manifest adds to them."""
    from fpmtools import leds
    from fpmtools.formats import images, manifest

    files = manifest.local_files(entry)
    if files is None:
        raise DataError(
            f"{entry.name}: its files are not in {manifest.data_dir() / entry.folder}; get them with: "
            f"fpmtools data fetch {entry.name}"
        )
    if (format or entry.reader) == "images":
        recording = images.read(files[0].parent, channel, files)
    else:
        recording = _read(files[0], format or entry.reader, channel)
    return replace(
        recording,
        name=entry.name,
        na=leds.from_mapping(entry.leds, entry.name) if entry.leds else recording.na,
        optics={**recording.optics, **entry.optics},
        defocus_um=recording.defocus_um if entry.defocus_um is None else entry.defocus_um,
        dark_level=entry.dark_level,
        provenance={**recording.provenance, "manifest_entry": entry.name},
    )


def _read(path: Path, format: str | None, channel: str | int | None) -> Recording:
    """Let the right reader read ``path``."""
    from fpmtools.formats import images, native
    from fpmtools.formats.recording import Recording

    kind = format or _sniff(path)
    if kind == "images":
        return images.read(path, channel)
    if channel is not None:
        raise OptionError(f"{path}: has no colour channels; leave out channel {channel!r}")
    if kind == "native":
        return Recording.of(native.read(path))
    return _read_matlab(path, format)


def _read_matlab(path: Path, format: str | None) -> Recording:
    from fpmtools.formats import fpm_inr, matfile, uconn

    mat = matfile.read(path, dict.fromkeys((*fpm_inr.KEYS, *uconn.KEYS)))
    if format == "uconn" or (format is None and uconn.IMAGES in mat.names):
        return uconn.interpret(mat)
    if format is None and not {fpm_inr.IMAGES, fpm_inr.BARE_IMAGES} & set(mat.names):
        found = ", ".join(mat.names) or "no variables"
        raise DataError(f"{path}: no FPM data: needs I_low, I or imlow_HDR, found {found}")
    return fpm_inr.interpret(mat)


def _sniff(path: Path) -> str:
    """What kind of file this is, from its content: native, images or matlab."""
    from fpmtools.formats import images, matfile

    if path.is_dir():
        return "images"
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a regular file or folder")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise DataError(f"{path}: is empty")
    if images.is_image(head):
        return "images"
    if matfile.is_matlab(head):
        return "matlab"
    if len(head) > 8 and head[8:9] == b"{":  # a safetensors header, after its length
        return "native"
    raise DataError(f"{path}: not a format that fpmtools reads: {'; '.join(READERS.values())}")


def _led_directions(leds: str | Path | Mapping[str, Any] | ArrayLike) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] from what the user gave."""
    from fpmtools import leds as patterns
    from fpmtools.formats import manifest

    if isinstance(leds, Mapping):
        return patterns.from_mapping(leds)
    if not isinstance(leds, str | Path):
        return patterns.from_mapping({"na": leds})
    if str(leds).lstrip().startswith("{"):
        return patterns.from_json(str(leds), "leds")
    entry = _entry(leds)
    if entry is not None and entry.leds:
        return patterns.from_mapping(entry.leds, entry.name)
    if (path := _found(leds)) is not None and path.is_file():
        return patterns.from_file(path)
    near = nearest(str(leds), [entry.name for entry in manifest.entries() if entry.leds], likeness=0.75)
    if near is not None:
        raise OptionError(f"leds {printable(str(leds))}: no such file, nor data set: did you mean {near!r}?")
    raise DataError(f"leds {printable(str(leds))}: no such file, nor a data set whose LED positions are known")
