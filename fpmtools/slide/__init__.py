"""A simulated slide: a frame far larger than one piece, over which angles, pupil and focus change, with its truth.

The frame is made in blocks with margins, and the sample is a function of the place: what is in memory depends on the
width of the frame, not on its area.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.errors import DataError, OptionError, OutputError, expect
from fpmtools.leds import direction_sines, raster
from fpmtools.optics import Optics, Shape
from fpmtools.progress import bar
from fpmtools.slide import sample
from fpmtools.slide.waves import Block

__all__ = ["simulate_slide"]

OPTICS = Optics(wavelength_um=0.532, na=0.1, magnification=4, camera_pixel_um=4.4)
MODES = ("astigmatism_0", "astigmatism_45", "coma_x", "coma_y", "spherical")
BLOCK = 256  # camera pixels from the middle of one block to that of the next
GUARD, TAPER = 32, 64  # camera pixels beyond a block that are as they are; and over which the sample fades out
IMAGES, ABOUT = "images.npy", "slide.json"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Slide:
    """What decides a slide, see :func:`simulate_slide`."""

    image_shape: Shape
    side: int
    pitch_mm: float
    height_mm: float
    upsample: int
    tilt_um: float
    bow_um: float
    aberration_rad: float
    photons: float | None
    seed: int
    optics: Optics
    block: int

    @property
    def led_um(self) -> Floats:
        """(x, y, height) of each LED over the middle of the frame."""
        places = raster(self.side, self.side, self.pitch_mm)
        return np.column_stack([places, np.full(len(places), self.height_mm)]) * 1e3

    @property
    def pixel_um(self) -> float:
        """Of the truth."""
        return self.optics.pixel_um / self.upsample

    def at(self, y: Any, x: Any) -> tuple[Any, Any]:
        """Camera pixels as places in the frame, -1 to 1 along each axis."""
        h, w = self.image_shape
        return 2 * y / h - 1, 2 * x / w - 1

    def depth_um(self, y: Any, x: Any) -> Any:
        """z of the sample at camera pixels: a surface that is tilted and bowed."""
        v, u = self.at(y, x)
        return self.tilt_um * (u + 0.5 * v) + self.bow_um * (u * u + v * v - 2 / 3)

    def aberrations_rad(self, y: float, x: float) -> dict[str, float]:
        """Zernike coefficients of the pupil at a camera pixel: polynomials of second order over the frame."""
        v, u = self.at(y, x)
        numbers = np.random.default_rng([self.seed, 1]).standard_normal((len(MODES), 4))
        sizes = self.aberration_rad / math.sqrt(len(MODES)) * (numbers @ [0.5, u, v, 0.5 * (u * u + v * v)])
        return dict(zip(MODES, sizes.tolist(), strict=True))

    def middles(self, axis: int) -> Floats:
        """Camera pixels in the middle of each block along an axis: evenly, from border to border."""
        length = self.image_shape[axis]
        return np.arange(0.5, max(1, -(-length // self.block))) * self.block

    def imaged(self, y: int, x: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Number of each LED, and the image by it of 2 × ``block`` pixels around the camera pixel (y, x)."""
        margin, (h, w) = GUARD + TAPER, self.image_shape
        half = self.block + margin
        spans = [((m - half) * self.upsample, (m + half) * self.upsample) for m in (y, x)]
        wave = sample.transmission(self.seed, self.pixel_um, spans[0], spans[1])
        edge = np.ones(len(wave), np.float32)
        fade = TAPER * self.upsample
        edge[:fade] = np.square(np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade))
        edge[-fade:] = edge[:fade][::-1]
        wave *= edge[:, None] * edge
        middle_um = ((x - w / 2) * self.optics.pixel_um, (y - h / 2) * self.optics.pixel_um)
        block = Block(wave, 2 * half, self.optics, middle_um, float(self.depth_um(y, x)), self.aberrations_rad(y, x))
        for led, place in enumerate(self.led_um.tolist()):
            yield led, block.intensity((place[0], place[1], place[2]))[margin:-margin, margin:-margin]

    def shares(self, axis: int, middle: float) -> tuple[slice, Floats]:
        """The pixels along an axis that a block has a share of, and the shares: linear from one middle to the next."""
        length, middles = self.image_shape[axis], self.middles(axis)
        first, last = max(int(middle - self.block), 0), min(int(middle + self.block), length)
        at = np.clip(np.arange(first, last), middles[0], middles[-1])  # at the borders all of the nearest
        return slice(first, last), np.maximum(0, 1 - np.abs(at - middle) / self.block)


def simulate_slide(
    out: str | Path,
    *,
    image_shape: Shape = (2048, 2048),
    leds: int = 9,
    pitch_mm: float = 5.9,
    height_mm: float = 100.0,
    upsample: int = 2,
    tilt_um: float = 10.0,
    bow_um: float = 5.0,
    aberration_rad: float = 0.5,
    photons: float | None = None,
    seed: int = 0,
    optics: Optics | Mapping[str, float] | None = None,
    force: bool = False,
    progress: bool = True,
) -> Path:
    """A folder with the images of a slide over which the angles, the pupil and the focus change, and its exact truth.

    Parameters
    ----------
    out
        The folder. ``fpmtools.load(out / "images.npy", config=out / "microscope.yaml")`` reads it.
    image_shape
        Shape (y, x) of one image, in camera pixels.
    leds, pitch_mm, height_mm
        A board of ``leds`` × ``leds``, whose waves are spherical: the middle of each part of the frame sees them from
        elsewhere, and over a part their phase is curved by about exp(ik|r|²/2h), the same for all but for what goes
        with na². A solver gives the sample times that.
    upsample
        Pixels of the truth per camera pixel along each axis.
    tilt_um, bow_um
        The sample lies at z = tilt · (u + v/2) + bow · (u² + v² - 2/3), u and v from -1 to 1 along x and y.
    aberration_rad
        Rms phase of the pupil, of five Zernike modes that are polynomials of second order over the frame.
    photons
        Photons per camera pixel where the sample is clear and the light direct; then images are counts, uint16. None:
        noiseless float32.
    seed
        Of sample, pupil and noise.
    optics
        The microscope, or numbers that replace those of a 4× objective of NA 0.1.
    force
        Replace what is there.
    progress
        Show a bar.

    Returns
    -------
    Path
        The folder, with ``images.npy`` [led, y, x], ``leds.csv``, ``microscope.yaml``, ``truth_field.npy`` (complex64
        [Y, X], the transmission), ``truth_depth_um.npy`` (float32 [Y, X]) and ``slide.json`` (all arguments, and the
        Zernike coefficients at the middle of each block). Written whole or not at all.

    Raises
    ------
    OptionError, DataError, OutputError
        A value out of range; LEDs that the truth's pixels cannot hold; a folder that is there.

    Notes
    -----
    Blocks of 256 pixels, each with the pupil and depth of its middle, are imaged with margins of 96, over the outer 64
    of which the sample fades out; a pixel is the mean of the blocks around it by its distance from their middles, so
    that all changes smoothly. Of light that the pupil's sharp edge sends farther than the margin a block knows nothing:
    against margins of 640 pixels bright-field images differ by 0.4 % rms of the clear intensity, and dark-field ones by
    0.05 %, without steps anywhere; 10 000 photons have 1 % of noise. It is some per cent where the direct light of an
    LED grazes the pupil's edge; with the board that is the default none does, anywhere in a frame of 2048².
    """
    expect(out, (str, Path), "slide: out", "a path")
    slide = _checked(
        image_shape, leds, pitch_mm, height_mm, upsample, tilt_um, bow_um, aberration_rad, photons, seed, optics
    )
    path = Path(out)
    if path.exists() and not force:
        raise OutputError(f"{path} exists; use force to replace it")
    if path.exists() and not (path / ABOUT).is_file():
        raise OutputError(f"{path} is something else than a simulated slide, and is not replaced")
    with bar("slide", progress) as show:

        def write(folder: Path) -> None:
            folder.mkdir()
            _write_words(slide, folder)
            _write_truth(slide, folder)
            _write_images(slide, folder, show)

        return storage.place(path, write)


def _checked(
    image_shape: Shape,
    leds: int,
    pitch_mm: float,
    height_mm: float,
    upsample: int,
    tilt_um: float,
    bow_um: float,
    aberration_rad: float,
    photons: float | None,
    seed: int,
    optics: Optics | Mapping[str, float] | None,
) -> _Slide:
    expect(image_shape, (tuple, list), "slide: image_shape", "two whole numbers (y, x), such as (2048, 2048)")
    for name, value in (("image_shape", image_shape[0]), ("image_shape", image_shape[-1]), ("leds", leds)):
        expect(value, numbers.Integral, f"slide: {name}", "whole numbers")
    expect(upsample, numbers.Integral, "slide: upsample", "a whole number")
    if len(image_shape) != 2 or min(image_shape) < 8 or leds < 1 or upsample < 1:
        raise OptionError("slide: images need 8 × 8 pixels at least, and leds and upsample must be 1 or more")
    reals = {"pitch_mm": pitch_mm, "height_mm": height_mm, "photons": 1.0 if photons is None else photons}
    bent = {"tilt_um": tilt_um, "bow_um": bow_um, "aberration_rad": aberration_rad}
    for name, number in {**reals, **bent}.items():
        expect(number, numbers.Real, f"slide: {name}", "a number")
    expect(seed, numbers.Integral, "slide: seed", "a whole number")
    for name, number in reals.items():
        if not (math.isfinite(number) and number > 0):
            raise OptionError(f"slide: {name} must be a positive number, got {number:g}")
    for name, number in bent.items():
        if not math.isfinite(number):
            raise OptionError(f"slide: {name} must be a finite number, got {number:g}")
    if seed < 0:
        raise OptionError("slide: seed must be 0 or more")
    expect(optics or {}, (Optics, Mapping), "slide: optics", "an Optics, or numbers by name")
    system = optics if isinstance(optics, Optics) else Optics.of({**OPTICS.to_dict(), **(optics or {})})
    block = min(BLOCK, max(image_shape) + max(image_shape) % 2)
    slide = _Slide(
        (int(image_shape[0]), int(image_shape[1])), int(leds), pitch_mm, height_mm, int(upsample), tilt_um, bow_um,
        aberration_rad, photons, seed, system, block,
    )  # fmt: skip
    half_mm = max(slide.image_shape) / 2 * system.pixel_um * 1e-3
    places = np.abs(raster(leds, leds, pitch_mm)) + half_mm  # as seen from the corner that is farthest away
    steepest = float(np.abs(direction_sines(places, height_mm)).max())
    holds = system.wavelength_um / (2 * slide.pixel_um) - system.na
    if steepest > holds:
        raise DataError(
            f"slide: LEDs light parts of the frame from NA {steepest:.3g}, and {upsample} truth pixels per camera "
            f"pixel hold {max(holds, 0):.3g} beside the objective's: take a larger upsample, or LEDs nearer to the axis"
        )
    return slide


def _write_words(slide: _Slide, folder: Path) -> None:
    """The board, the microscope, and all that was decided."""
    lines = [f"{x:.9g},{y:.9g},{h:.9g}" for x, y, h in (slide.led_um / 1e3).tolist()]
    (folder / "leds.csv").write_text("\n".join(["x_mm,y_mm,height_mm", *lines]) + "\n")
    known = ", ".join(f"{name}: {value!r}" for name, value in slide.optics.to_dict().items())
    (folder / "microscope.yaml").write_text(f"optics: {{{known}}}\nleds: leds.csv\n")
    blocks = [[y, x] for y in slide.middles(0).tolist() for x in slide.middles(1).tolist()]
    about = {name: getattr(slide, name) for name in slide.__dataclass_fields__ if name != "optics"}
    storage.write_json(
        folder / ABOUT,
        {
            **about,
            "optics": slide.optics.to_dict(),
            "blocks_yx": blocks,
            "aberrations_rad": [slide.aberrations_rad(y, x) for y, x in blocks],
        },
    )


def _start(path: Path, dtype: Any, shape: tuple[int, ...]) -> IO[bytes]:
    """A ``.npy`` file to be filled, open behind its header."""
    file = path.open("wb")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _write_truth(slide: _Slide, folder: Path) -> None:
    """Field and depth, a band of rows at a time."""
    (h, w), u = slide.image_shape, slide.upsample
    rows, columns = h * u, w * u
    x = np.arange(columns) / u
    with (
        _start(folder / "truth_field.npy", np.complex64, (rows, columns)) as field,
        _start(folder / "truth_depth_um.npy", np.float32, (rows, columns)) as depth,
    ):
        for first in range(0, rows, slide.block * u):
            last = min(first + slide.block * u, rows)
            field.write(sample.transmission(slide.seed, slide.pixel_um, (first, last), (0, columns)).tobytes())
            z = slide.depth_um(np.arange(first, last)[:, None] / u, x)
            depth.write(z.astype(np.float32).tobytes())


def _write_images(slide: _Slide, folder: Path, show: Any) -> None:
    """Block by block; rows are written once no further block has a share of them."""
    h, w = slide.image_shape
    leds, rows, columns = len(slide.led_um), slide.middles(0), slide.middles(1)
    dtype: Any = np.float32 if slide.photons is None else np.uint16
    band, first, done = np.zeros((leds, 2 * slide.block, w), np.float32), 0, 0
    with _start(folder / IMAGES, dtype, (leds, h, w)) as file:
        begin = file.tell()
        for row, y in enumerate(rows.tolist()):
            for x in columns.tolist():
                show({"step": done, "total": len(rows) * len(columns), "doing": "block"})
                (down, by_row), (along, by_column) = slide.shares(0, y), slide.shares(1, x)
                share = (by_row[:, None] * by_column).astype(np.float32)
                corner = int(y - slide.block), int(x - slide.block)
                part = np.s_[
                    down.start - corner[0] : down.stop - corner[0], along.start - corner[1] : along.stop - corner[1]
                ]
                for led, image in slide.imaged(int(y), int(x)):
                    band[led, down.start - first : down.stop - first, along] += share * image[part]
                done += 1
            last = h if y == rows[-1] else int(y)
            for led in range(leds):
                file.seek(begin + ((led * h + first) * w) * np.dtype(dtype).itemsize)
                file.write(_exposed(slide, band[led, : last - first], row, led).astype(dtype).tobytes())
            kept = band[:, last - first :].copy()
            band[:] = 0
            band[:, : kept.shape[1]] = kept
            first = last
        show({"step": done, "total": done, "doing": "block"})


def _exposed(slide: _Slide, intensity: NDArray[np.float32], band: int, led: int) -> NDArray[Any]:
    """With photon noise, where there is any."""
    if slide.photons is None:
        return intensity
    rng = np.random.default_rng([slide.seed, 4, band, led])
    return np.minimum(rng.poisson(intensity.astype(np.float64) * slide.photons), np.iinfo(np.uint16).max)
