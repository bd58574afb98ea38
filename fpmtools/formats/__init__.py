"""Reading measurements, and writing results: any supported file, folder or known name becomes a :class:`Dataset`.

One format per file, announced by a record in ``announced``: readers turn it into a ``Recording``, all that the file
says (:func:`load` makes a validated data set of it), writers take a ``Volume``, complex planes one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpmtools.errors import expect

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fpmtools.dataset import Dataset
    from fpmtools.formats.settings import Settings
    from fpmtools.leds import Board

__all__ = ["load"]


def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    format: str | None = None,  # what everyone calls it, even if it hides a builtin
    key: str | None = None,
    channel: str | int | None = None,
    bayer: str | None = None,
    roi: Sequence[int] | None = None,
    optics: Mapping[str, float] | None = None,
    leds: str | Path | Mapping[str, Any] | ArrayLike | Board | None = None,
    axes: str | None = None,
    patterns: str | Path | ArrayLike | None = None,
    leds_use: str | Sequence[int] | None = None,
    max_na: float | None = None,
    dark_level: float | None = None,
    dark: str | Path | ArrayLike | None = None,
    amplitudes: bool | None = None,
    defocus_um: float | None = None,
) -> Dataset:
    """Read measurements.

    Parameters
    ----------
    source
        A file or folder, the name of a data set in the manifest (``fpmtools data list``) that is on this machine, or a
        simulated sample (``"sim:tilted@128"``, ``"sim:bars+noise@96x128"``, see :mod:`fpmtools.catalogue`). A name that
        is also a path here means the manifest's; write ``./name`` for the path.
    config
        A YAML file with the numbers of a set-up, under the names of the arguments below. What is given here wins over
        it; what it says otherwise than the data is an error.
    format
        Name of a reader; found out from the content when it is not given.
    key
        Which array of a file with several holds the images; which section of a PtyLab file.
    channel
        Colour plane of colour images: r, g, b or 0, 1, 2.
    bayer
        The images are a colour camera's as it records them, a filter on each pixel: ``"RGGB"`` and the like, the
        colours of the first pixels of the first two rows. Of these the ``channel``'s own are read; ``roi`` and
        ``camera_pixel_um`` are still those of the camera, and all four numbers of ``roi`` even.
    roi
        (y, x, height, width) in camera pixels.
    optics
        Numbers of the microscope that are not in the file, or that replace those in it: ``wavelength_um``, ``na``,
        ``magnification``, ``camera_pixel_um``, ``medium_index``; ``pixel_um``, a pixel on the object, in place of the
        camera's pixel or of both.
    leds
        LED positions that are not in the file, or replace those in it: a CSV or JSON file, a description or its JSON
        text (see :func:`fpmtools.leds.from_mapping`), direction sines [led, (x, y)], or the name of a manifest entry
        taken with the same board.
    axes
        Which way the board's axes run in the image, ``"-y,x"`` for instance, see :func:`fpmtools.leds.orient`.
    patterns
        Which LEDs light an image, and how strongly, [image, led]; or a file of such numbers.
    leds_use
        Images that are used, the others are left out: numbers from 0 on and ranges, ``"0-48,60"``; ``"bright"`` or
        ``"dark"`` for bright or dark field.
    max_na
        Images lit from beyond this NA are left out.
    dark_level
        Camera offset in the images' units, subtracted from every pixel (negative results become 0, and are told of);
        default: what the manifest says, else 0.
    dark
        In its place an image without light, or a file with one or more of it; default: a ``dark.tif`` (or ``.png``, …)
        among the images.
    amplitudes
        The data are amplitudes, the square roots of intensities: square them.
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
        When an argument is unknown or does not fit, or the config says otherwise than the data.

    Examples
    --------
    >>> images = np.random.default_rng(0).poisson(100, (9, 16, 24)).astype(np.uint16)
    >>> np.save("images.npy", images)
    >>> optics = {"wavelength_um": 0.53, "na": 0.1, "magnification": 4, "camera_pixel_um": 3.45}
    >>> leds = [(0.05 * x, 0.05 * y) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    >>> data = fpmtools.load("images.npy", optics=optics, leds=leds, roi=(0, 4, 16, 20))
    >>> data.n_images, data.image_shape, data.optics.na
    (9, (16, 20), 0.1)
    """
    from fpmtools.formats import settings

    expect(source, (str, Path), "load: source", "a path, or the name of a data set", "such as 'sim:tilted'")
    expect(config, (str, Path, type(None)), "load: config", "the path of a YAML file")
    expect(optics or {}, Mapping, "load: optics", "numbers by name, such as {'na': 0.1}")
    asked = settings.Settings(
        format=format, key=key, channel=channel, bayer=bayer, roi=roi, optics=optics or {}, leds=leds, axes=axes,
        patterns=patterns, leds_use=leds_use, max_na=max_na, dark_level=dark_level, dark=dark, amplitudes=amplitudes,
        defocus_um=defocus_um,
    )  # fmt: skip
    known = settings.Settings() if config is None else settings.read(config)
    return _load(source, asked, known, "" if config is None else str(config))


def _load(source: str | Path, asked: Settings, config: Settings, where: str) -> Dataset:
    """Read, compare with the config, and put together what is known."""
    from fpmtools import leds
    from fpmtools.formats import bayer, numbers, preparing, settings, sources

    wanted = asked.over(config)
    if wanted.format is not None:
        sources.reader_named(wanted.format)  # unknown names first
    what = "leds" if asked.leds is not None else f"{where}: leds"
    try:
        board = None if wanted.leds is None else sources.board(wanted.leds, what=what)
    except leds.NamesNeeded:
        board = None
    first = None if wanted.bayer is None else bayer.site(wanted.bayer, wanted.channel)
    files = wanted if first is None else replace(wanted, channel=None)
    recording = sources.read(source, files, None if board is None or wanted.patterns is not None else board.images)
    about = {"config": where} if where else {}
    recording = replace(recording, provenance={"source": str(source), **recording.provenance, **about})
    if wanted.leds is not None and board is None:
        board = sources.board(wanted.leds, recording.files, what)
    settings.check_facts(str(source), recording, where, config, asked, board)
    if board is not None:
        recording = recording.lit_by(board)
    if wanted.patterns is not None:
        recording = recording.lit_by(preparing.with_patterns(recording, wanted.patterns))
    if wanted.defocus_um is not None:
        recording = replace(recording, defocus_um=wanted.defocus_um)
    known = numbers.combine(recording.optics, wanted.optics)
    if first is None:
        return preparing.dataset(recording, wanted, known)
    if "camera_pixel_um" in known:
        known["camera_pixel_um"] *= 2
    roi = None if wanted.roi is None else bayer.halved_box(wanted.roi)
    return preparing.dataset(bayer.of_colour(recording, first), replace(wanted, roi=roi), known, first)
