"""A film through z, a looping GIF or an MP4: amplitude and phase side by side, one contrast for the whole stack."""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fpmtools import storage
from fpmtools.errors import OutputError
from fpmtools.report.contrast import FULL_CIRCLE, Scale, gray_scale, length_label, phase_scale, scale_bar_um, z_label

LONGEST = 600  # pixels
_HEAD, _FOOT, _GAP = 24, 30, 8
_NARROWEST = 170  # a panel's labels need this much
_SAMPLED = 9  # planes that decide the contrast


class Planes(Protocol):
    """Real images [y, x] by number."""

    def __getitem__(self, plane: int, /) -> NDArray[Any]: ...


def write_gif(
    path: str | Path,
    amplitude: Planes,
    phase: Planes,
    z_um: Sequence[float],
    extent_um: tuple[float, float],
) -> Path:
    """Write a GIF with one frame per plane, at most about 600 pixels wide or high, which plays in a few seconds.

    ``amplitude`` and ``phase`` (rad) are real [z, y, x], or whatever gives plane k when asked for [k]; one plane at a
    time is looked at. ``extent_um`` is the field of view (y, x).
    """
    frames = _frames(amplitude, phase, z_um, extent_um)
    buffer = io.BytesIO()
    next(frames).save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=frames,
        duration=10 * _hundredths(len(z_um)),
        loop=0,
        optimize=False,
    )
    return storage.write_bytes(path, buffer.getvalue())


def write_mp4(
    path: str | Path,
    amplitude: Planes,
    phase: Planes,
    z_um: Sequence[float],
    extent_um: tuple[float, float],
) -> Path:
    """The frames of :func:`write_gif` as H.264, which plays everywhere; colours are halved in resolution by that.

    Raises :class:`OutputError` without the package imageio-ffmpeg, and where its program fails.
    """
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError:
        raise OutputError(
            "MP4 needs the package imageio-ffmpeg: pip install 'fpmtools[video]'; or write .gif"
        ) from None
    frames = _frames(amplitude, phase, z_um, extent_um)
    first = next(frames)
    size = first.width + first.width % 2, first.height + first.height % 2  # H.264 asks for even ones
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"100/{_hundredths(len(z_um))}"]
    wanted = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "16", "-movflags", "+faststart", "-f", "mp4"]
    program: list[str] = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    with subprocess.Popen(
        [*program, *given, "-i", "-", *wanted, f"file:{path}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it says why in its last words
            for frame in itertools.chain([first], frames):
                even = Image.new("RGB", size)
                even.paste(frame.convert("RGB"))
                process.stdin.write(even.tobytes())
        last = process.stderr.read().decode(errors="replace").split()
    if process.returncode:
        raise OutputError(f"cannot write {path}: ffmpeg: {' '.join(last)[-200:] or 'it failed'}")
    return Path(path)


def _hundredths(planes: int) -> int:
    """Hundredths of a second for which each of so many planes is shown."""
    return round(min(max(600 / planes, 6), 50))


@dataclass(frozen=True)
class _Layout:
    """Where the two pictures go, in pixels: ``size`` (x, y) each, their top left corners, and the page."""

    size: tuple[int, int]
    corners: tuple[tuple[int, int], tuple[int, int]]
    page: tuple[int, int]

    @classmethod
    def choose(cls, extent_um: tuple[float, float]) -> _Layout:
        aspect = extent_um[0] / extent_um[1]
        stacked = aspect < 0.5
        room = LONGEST if stacked else (LONGEST - _GAP) // 2
        width = min(room, round(LONGEST / max(aspect, 1.0)))
        height = max(1, round(width * aspect))
        slot = max(width, _NARROWEST)
        inset = (slot - width) // 2
        if stacked:
            step = _HEAD + height + _FOOT
            return cls((width, height), ((inset, _HEAD), (inset, _HEAD + step)), (slot, 2 * step))
        corners = ((inset, _HEAD), (slot + _GAP + inset, _HEAD))
        return cls((width, height), corners, (2 * slot + _GAP, _HEAD + height + _FOOT))


def _frames(
    amplitude: Planes, phase: Planes, z_um: Sequence[float], extent_um: tuple[float, float]
) -> Iterator[Image.Image]:
    chosen = sorted({round(k) for k in np.linspace(0, len(z_um) - 1, min(_SAMPLED, len(z_um)))})
    gray = gray_scale(amplitude[k] for k in chosen)
    colour = phase_scale(amplitude[k] * np.exp(1j * phase[k]) for k in chosen)
    layout = _Layout.choose(extent_um)
    page, font = _page(layout, gray, colour), _font(13)
    left, right = layout.corners
    for k, z in enumerate(z_um):
        picture = page.copy()
        picture.paste(_levels(_resized(amplitude[k], layout.size), gray, 0), left)
        picture.paste(_levels(_resized_phase(phase[k], layout.size), colour, 128), right)
        draw = ImageDraw.Draw(picture)
        draw.fontmode = "1"  # palette indices cannot be blended
        draw.text((left[0] + 2, 4), z_label(z), fill=127, font=font)
        _scale_bar(draw, layout, extent_um)
        yield picture


def _page(layout: _Layout, gray: Scale, colour: Scale) -> Image.Image:
    """What all frames share: palette (128 greys, 128 phase colours), names and colour bars with their ends."""
    page = Image.new("P", layout.page, 0)
    ramp = np.repeat(np.round(np.linspace(0, 255, 128)).astype(np.uint8)[:, None], 3, axis=1)
    hues = np.round(matplotlib.colormaps[colour.cmap](np.linspace(0, 1, 128))[:, :3] * 255).astype(np.uint8)
    page.putpalette(np.concatenate([ramp, hues]).tobytes())
    draw, font = ImageDraw.Draw(page), _font(11)
    draw.fontmode = "1"
    for (x, y), name, scale, base in zip(
        layout.corners, ("amplitude", "phase (rad)"), (gray, colour), (0, 128), strict=True
    ):
        width, height = layout.size
        middle, below = x + width / 2, y + height + 5
        half = max(width, _NARROWEST) / 2
        strip = np.tile(np.linspace(0, 127, int(half)).astype(np.uint8) + base, (8, 1))
        page.paste(Image.fromarray(strip), (int(middle - half / 2), int(below)))
        low, high = (
            ("−π", "π") if scale == FULL_CIRCLE else (f"{v:.2f}".replace("-", "−") for v in (scale.low, scale.high))
        )
        draw.text((middle - half / 2 - 4, below + 4), low, fill=127, font=font, anchor="rm")
        draw.text((middle + half / 2 + 4, below + 4), high, fill=127, font=font, anchor="lm")
        draw.text((middle, below + 9), name, fill=127, font=font, anchor="ma")
    return page


def _scale_bar(draw: ImageDraw.ImageDraw, layout: _Layout, extent_um: tuple[float, float]) -> None:
    """At the top right of the first picture's header, so that it hides nothing."""
    (x, _), (width, _) = layout.corners[0], layout.size
    length = scale_bar_um(extent_um[1])
    pixels = max(1, round(length / extent_um[1] * width))
    right = x + width - 1
    draw.rectangle((right - pixels, _HEAD - 5, right, _HEAD - 3), fill=127)
    draw.text((right, _HEAD - 7), length_label(length), fill=127, font=_font(11), anchor="rd")


def _levels(values: NDArray[Any], scale: Scale, base: int) -> Image.Image:
    share = np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)
    return Image.fromarray((base + np.round(127 * share)).astype(np.uint8))


def _resized(values: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    shrinks = size[0] < values.shape[1]
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST))


def _resized_phase(phase: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Averages directions, not angles: +π and −π are neighbours."""
    return np.arctan2(_resized(np.sin(phase), size), _resized(np.cos(phase), size))


def _font(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), pixels)
