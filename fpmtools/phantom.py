"""Made-up samples, all periodic complex transmissions: a blood smear, flat or deep, bars of known size, a Siemens star.

The smear has detail from cells of 10 µm down to grains of 0.5 µm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fpmtools.optics import Shape

Array = NDArray[np.float64]


def blood_smear(shape: Shape, pixel_um: float, seed: int = 0) -> NDArray[np.complex128]:
    """Transmission [y, x] of a stained blood smear with pixels of ``pixel_um``, periodic in both directions.

    Biconcave red cells (amplitude about 0.6 … 1, phase 0 … 1.4 rad; some crenated or stippled), a few white cells with
    a lobed nucleus and granules, platelets, and a faint background. ``seed`` chooses the cells.
    """
    rng = np.random.default_rng([seed, 0])
    slide = _Slide(np.zeros(shape), np.zeros(shape), pixel_um)
    for draw, radius, centre in _cells(rng, np.array(shape) * pixel_um, 1.0):
        draw(rng, slide, centre, radius)
    slide.density += 0.01 * _grain(rng, shape, pixel_um, 1.5)
    slide.phase += 0.03 * _grain(rng, shape, pixel_um, 2.5)
    return slide.transmission


def blood_slices(
    shape: Shape, pixel_um: float, count: int, seed: int = 0
) -> tuple[NDArray[np.complex64], NDArray[np.intp]]:
    """Transmissions [slice, y, x] of ``count`` thin slices with half as many cells as a smear has, and an index.

    The index [y, x] is the slice of the cell whose centre is nearest to the pixel. Cells keep apart as far as they
    can, so that where one is, the other slices are mostly clear.
    """
    rng = np.random.default_rng([seed, 0])
    cells = _cells(rng, np.array(shape) * pixel_um, 0.5)
    slices = [_Slide(np.zeros(shape), np.zeros(shape), pixel_um) for _ in range(count)]
    where = rng.permutation(np.arange(len(cells)) * count // len(cells))  # evenly, from the first slice to the last
    for (draw, radius, centre), index in zip(cells, where, strict=True):
        draw(rng, slices[index], centre, radius)
    extent = np.array(shape) * pixel_um
    places = cKDTree(np.stack([centre for _, _, centre in cells]) % extent, boxsize=extent)
    pixels = np.stack(np.meshgrid(*(np.arange(n) * pixel_um for n in shape), indexing="ij"), axis=-1)
    _, nearest = places.query(pixels)
    return np.stack([slide.transmission.astype(np.complex64) for slide in slices]), where[nearest]


@dataclass(frozen=True)
class Element:
    """Three horizontal and three vertical bars of a resolution target, named as on the USAF 1951 chart.

    ``box_um`` is (y, x, height, width) of both triples together; a bar is half of ``period_um`` wide.
    """

    group: int
    element: int
    period_um: float
    box_um: tuple[float, float, float, float]


def bars(shape: Shape, pixel_um: float) -> tuple[NDArray[np.complex128], list[Element]]:
    """Transmission [y, x] of dark three-bar elements (amplitude 0.15 on 1), and where each is.

    Group g, element e has 2^(g + (e − 1)/6) line pairs per mm. The coarsest that fits an eleventh of the shorter side
    comes first, and finer ones follow in rows until the field is full or a bar is narrower than a pixel.
    """
    height, width = (n * pixel_um for n in shape)
    step = math.ceil(6 * math.log2(1000 / (min(height, width) / 11)))
    dark, elements = np.zeros(shape), []
    top, left, row = 0.0, 0.0, 0.0
    while (period := 1000 / 2 ** (step / 6)) >= 2 * pixel_um:
        block, gap = 2.5 * period, period
        if left + 2 * block + 2 * gap > width:
            top, left, row = top + row, 0.0, 0.0
        if top + block + gap > height:
            break
        y, x = top + gap / 2, left + gap / 2
        for bar in (0, period, 2 * period):
            dark += np.outer(_covered(shape[0], pixel_um, y + bar, period / 2), _covered(shape[1], pixel_um, x, block))
            along = _covered(shape[0], pixel_um, y, block)
            dark += np.outer(along, _covered(shape[1], pixel_um, x + block + gap + bar, period / 2))
        elements.append(Element(step // 6, step % 6 + 1, period, (y, x, block, 2 * block + gap)))
        left, row, step = left + 2 * block + 2 * gap, max(row, block + gap), step + 1
    return np.asarray(1 - 0.85 * dark, dtype=np.complex128), elements


SPOKES = 36


def siemens_star(shape: Shape, pixel_um: float) -> NDArray[np.complex128]:
    """Transmission [y, x] of :data:`SPOKES` dark spokes (amplitude 0.15 on 1) within 0.45 of the shorter side.

    At the radius r from the middle, the spokes' period is 2π r / SPOKES.
    """
    y, x = ((np.arange(n) - n / 2) * pixel_um for n in shape)
    radius, angle = np.hypot(y[:, None], x), np.arctan2(y[:, None], x)
    edge_um = np.arcsin(np.cos(SPOKES * angle)) * radius / SPOKES  # distance to the nearest edge, inside positive
    rim_um = 0.45 * min(shape) * pixel_um - radius
    dark = np.clip(0.5 + edge_um / pixel_um, 0, 1) * np.clip(0.5 + rim_um / pixel_um, 0, 1)
    return np.asarray(1 - 0.85 * dark, dtype=np.complex128)


def _covered(count: int, pixel_um: float, start_um: float, length_um: float) -> Array:
    """Share of each of ``count`` pixels that lies in an interval."""
    edges = np.arange(count + 1) * pixel_um
    return np.asarray(np.diff(np.clip(edges, start_um, start_um + length_um)) / pixel_um)


def _cells(rng: Generator, extent: Array, crowding: float) -> list[tuple[Any, float, Array]]:
    """What draws each cell, its radius and its centre (y, x), both µm."""
    area = float(extent.prod()) * crowding
    counts = {_white_cell: max(1, round(area / 1800)), _red_cell: round(area / 80), _platelet: round(area / 250)}
    radii = {_white_cell: (4.6, 5.4), _red_cell: (3.3, 3.9), _platelet: (0.8, 1.2)}
    cells = [(draw, rng.uniform(*radii[draw])) for draw, count in counts.items() for _ in range(count)]
    centres = _scatter(rng, [radius for _, radius in cells], extent)
    return [(draw, radius, centre) for (draw, radius), centre in zip(cells, centres, strict=True)]


@dataclass
class _Slide:
    """−log(amplitude) and phase in rad, [y, x], that cells are added to; the right edge continues at the left."""

    density: Array
    phase: Array
    pixel_um: float

    @property
    def transmission(self) -> NDArray[np.complex128]:
        return np.asarray(np.exp(-self.density + 1j * self.phase))

    def window(self, centre: Array, reach_um: float) -> tuple[tuple[Array, ...], Array, Array]:
        """Indices of the pixels within ``reach_um`` of ``centre`` (y, x), and their distances dy, dx from it in µm."""
        index, distance = [], []
        for at, size in zip(centre / self.pixel_um, self.density.shape, strict=True):
            half = min(math.ceil(reach_um / self.pixel_um) + 1, (size - 1) // 2)
            pixels = round(at) + np.arange(-half, half + 1)
            index.append(pixels % size)
            distance.append((pixels - at) * self.pixel_um)
        return np.ix_(*index), distance[0][:, None], distance[1][None, :]

    def add(self, where: tuple[Array, ...], shape: Array, density: float, phase: float) -> None:
        self.density[where] += density * shape
        self.phase[where] += phase * shape

    def dots(self, centres: Array, radius_um: float, density: float, phase: float) -> None:
        """Gaussian grains at ``centres`` [n, (y, x)]."""
        for centre in centres:
            where, dy, dx = self.window(centre, 3 * radius_um)
            self.add(where, np.exp(-(dy**2 + dx**2) / radius_um**2), density, phase)


def _red_cell(rng: Generator, slide: _Slide, centre: Array, radius: float) -> None:
    """Thickness of a biconcave disc (Evans & Fung, Microvasc. Res. 4, 335, 1972), with an irregular outline."""
    where, dy, dx = slide.window(centre, 1.2 * radius)
    angle = np.arctan2(dy, dx)
    outline = _outline(rng, angle, 0.03)
    kind = rng.uniform()
    if kind < 0.25:  # crenated: spicules about 1.2 µm apart
        bend = 2 * np.sin(2 * angle + rng.uniform(0, 2 * np.pi))
        outline = outline + 0.04 * np.cos(round(2 * np.pi * radius / 1.2) * angle + bend)
    rho = np.minimum((dy**2 + dx**2) / (radius * outline) ** 2, 1)
    slide.add(where, np.sqrt(1 - rho) * (0.81 + 7.83 * rho - 4.39 * rho**2) / 2.59, 0.45, 1.3)
    if kind > 0.6:  # stippled
        slide.dots(centre + _in_disc(rng, 14, 0.8 * radius), 0.3, 0.22, 0.3)


def _white_cell(rng: Generator, slide: _Slide, centre: Array, radius: float) -> None:
    where, dy, dx = slide.window(centre, 1.2 * radius)
    edge = 1 - np.hypot(dy, dx) / (radius * _outline(rng, np.arctan2(dy, dx), 0.03))
    slide.add(where, np.sqrt(np.clip(edge, 0, 0.5)), 0.1, 0.5)
    turn = rng.uniform(0, 2 * np.pi)
    nucleus = np.zeros((dy.shape[0], dx.shape[1]))
    for lobe in range(3):
        angle = turn + 2 * np.pi * lobe / 3.6
        y, x = 0.45 * radius * np.sin(angle), 0.45 * radius * np.cos(angle)
        size = 0.36 * radius * _outline(rng, np.arctan2(dy - y, dx - x), 0.05)
        nucleus = np.maximum(nucleus, np.clip((1 - np.hypot(dy - y, dx - x) / size) * 3, 0, 1))
    chromatin = 1 + 0.35 * _grain(rng, (dy.shape[0], dx.shape[1]), slide.pixel_um, 0.45)
    slide.add(where, nucleus * chromatin, 0.4, 0.7)
    slide.dots(centre + _in_disc(rng, round(1.4 * radius**2), 0.88 * radius), 0.3, 0.13, 0.3)


def _platelet(rng: Generator, slide: _Slide, centre: Array, radius: float) -> None:
    slide.dots(centre[None], radius, 0.08, 0.3)
    slide.dots(centre + _in_disc(rng, 6, 0.7 * radius), 0.28, 0.15, 0.2)


def _outline(rng: Generator, angle: Array, strength: float) -> Array:
    """Radius of a nearly round cell over ``angle``, about 1."""
    waves = [np.cos(k * angle + rng.uniform(0, 2 * np.pi)) * rng.normal() for k in (2, 3, 4)]
    return np.asarray(1 + strength * np.clip(sum(waves), -2.5, 2.5))


def _in_disc(rng: Generator, count: int, radius: float) -> Array:
    """``count`` points (y, x), even over a disc around 0."""
    r, angle = radius * np.sqrt(rng.uniform(size=count)), rng.uniform(0, 2 * np.pi, count)
    return np.stack([r * np.sin(angle), r * np.cos(angle)], axis=1)


def _scatter(rng: Generator, radii: list[float], extent: Array) -> Array:
    """Centres [n, (y, x)] in µm: the first in the middle, each other the roomiest of some random places."""
    centres = np.empty((len(radii), 2))
    for i, radius in enumerate(radii):
        places = rng.uniform(size=(60, 2)) * extent
        apart = np.abs(places[:, None] - centres[None, :i])
        gaps = np.hypot(*np.minimum(apart, extent - apart).T).T - np.array(radii[:i]) - radius
        centres[i] = places[np.minimum(gaps.min(axis=1, initial=np.inf), 0.3).argmax()] if i else extent / 2
    return centres


def _grain(rng: Generator, shape: Shape, pixel_um: float, size_um: float) -> Array:
    """Periodic random texture [y, x] of mean 0 and standard deviation 1 with grains of about ``size_um``."""
    fy, fx = (np.fft.fftfreq(n, pixel_um) for n in shape)
    falloff = np.exp(-((np.pi * size_um / 2) ** 2) * (fy[:, None] ** 2 + fx[None, :] ** 2))
    falloff[0, 0] = 0
    spectrum = scipy.fft.fft2(rng.standard_normal(shape), axes=(-2, -1)) * falloff
    texture = np.asarray(scipy.fft.ifft2(spectrum, axes=(-2, -1))).real
    return np.asarray(texture / texture.std())
