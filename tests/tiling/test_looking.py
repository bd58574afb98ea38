"""Mosaics in the browser and in napari: only the tiles that are looked at are read, at the level that is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools.napari import layers, reader
from fpmtools.tiling.mosaic import Mosaic
from fpmtools.viewer.opening import opened
from fpmtools.viewer.regions import Box, level_shape


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of the tiles that have been opened."""
    numbers: set[int] = set()
    original = Mosaic._opened

    def noted(mosaic: Mosaic, index: int) -> fpmtools.Reconstruction:
        numbers.add(index)
        return original(mosaic, index)

    monkeypatch.setattr(Mosaic, "_opened", noted)
    return numbers


def means(values: np.ndarray, level: int) -> np.ndarray:
    """Of 2^level × 2^level values, fewer at the end."""
    side = 1 << level
    rows, columns = (-(-n // side) for n in values.shape)
    return np.array(
        [
            [values[y * side : (y + 1) * side, x * side : (x + 1) * side].mean() for x in range(columns)]
            for y in range(rows)
        ]
    )


def test_the_viewer_asks_for_parts(solved: Path, read: set[int]) -> None:
    mosaic, (source, *_) = fpmtools.open_result(solved), opened([str(solved)]).sources
    assert isinstance(mosaic, Mosaic)
    first = source.values("amplitude", 0.0, Box(0, 0, 10, 12), 0)
    assert read == {0}, "and no other tile"
    whole = mosaic.field(0.0)
    np.testing.assert_allclose(first, np.abs(whole[:10, :12]), rtol=1e-4)
    for level in (1, 3):
        expected, (height, width) = means(whole, level), level_shape(mosaic.grid.shape, level)
        found = source.regions.region(0.0, Box(0, 0, height, width), level)  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        part = source.regions.region(0.0, Box(5, 7, height - 5, width - 7), level)  # type: ignore[attr-defined]
        np.testing.assert_allclose(part, expected[5:, 7:], atol=1e-4)


def test_napari_has_levels_that_are_made_where_one_looks(
    solved: Path, read: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "COARSEST", 64)
    open_it = reader.get_reader(str(solved))
    assert open_it is not None
    found = {about["name"]: (data, about) for data, about, _ in open_it(str(solved))}
    amplitude, about = found[f"{solved.name} amplitude"]
    phase = found[f"{solved.name} phase"][0]
    whole = fpmtools.open_result(solved).field(0.0)
    assert about["multiscale"] is True
    assert [level.shape for level in amplitude] == [(1, *level_shape(whole.shape, k)) for k in range(len(amplitude))]
    assert max(amplitude[-1].shape) <= 64 < max(amplitude[-2].shape)
    read.clear()
    np.testing.assert_allclose(amplitude[0][0, 3:20:2, 5:17], np.abs(whole[3:20:2, 5:17]), rtol=1e-4)
    assert read <= {0}
    np.testing.assert_allclose(amplitude[1][0], np.abs(means(whole, 1)), atol=1e-4)
    turned = whole * np.exp(-1j * np.angle(whole.sum()))
    away = np.abs(np.exp(1j * phase[0][0]) - np.exp(1j * np.angle(turned)))
    assert np.median(away) < 1e-3
    assert amplitude[0][0, 4].shape == (whole.shape[1],)
    assert np.asarray(amplitude[-1]).shape == amplitude[-1].shape
