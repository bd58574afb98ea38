"""The pictures and numbers of the page are those of the results, pixel by pixel."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.unwrapping import is_unique
from fpmtools.viewer.layers import COLOURS, palette
from fpmtools.viewer.regions import Box, InParts, Kept, Pyramid, halved, level_shape, levels
from fpmtools.viewer.scene import OVERLAP, Scene
from fpmtools.viewer.sources import FieldSource

RANGE: dict[str, Any] = {"low": 0.2, "high": 1.5}


def pixels(png: bytes) -> NDArray[Any]:
    """Numbers as they are in the file: indices where it has a palette."""
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)))


def levels_of(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    return np.clip(np.rint((values - low) / (high - low) * 255), 0, 255)


def near(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Equal but where rounding to one of 256 levels was a close call."""
    difference = np.abs(found.astype(float) - expected)
    return found.shape == expected.shape and difference.max() <= 1 and (difference > 0).mean() < 0.002


@pytest.mark.parametrize("z", [-2.0, 0.0, 1.37, 3.0])
def test_amplitude(scene: Scene, stack: PlaneStack, z: float) -> None:
    tile = pixels(scene.tile(0, "amplitude", z, 0, 0, 0, **RANGE))
    assert near(tile, levels_of(np.abs(stack.field(z)), 0.2, 1.5))


@pytest.mark.parametrize("colours", ["gray", "viridis", "cyclic"])
def test_phase(scene: Scene, stack: PlaneStack, colours: str) -> None:
    png = scene.tile(0, "phase", 1.0, 0, 0, 0, low=-math.pi, high=math.pi, colours=colours)
    assert near(pixels(png), levels_of(stack.phase(1.0), -math.pi, math.pi))
    if colours != "gray":
        flat = Image.open(io.BytesIO(png)).getpalette()
        assert np.array_equal(np.reshape(flat, (-1, 3)), palette(colours))


def test_unwrapped(scene: Scene, stack: PlaneStack) -> None:
    assert np.ptp(stack.phase(0.0, unwrap=True)) > 2 * math.pi
    tile = pixels(scene.tile(0, "unwrapped", 0.0, 0, 0, 0, low=-12, high=12))
    assert near(tile, levels_of(stack.phase(0.0, unwrap=True), -12, 12))


def test_colour(scene: Scene, stack: PlaneStack) -> None:
    tile = pixels(scene.tile(0, "colour", 0.0, 0, 0, 0, low=0, high=2)).astype(float)
    hues = palette("hue").astype(float)
    turn = np.floor((stack.phase(0.0) / (2 * math.pi) + 0.5) * COLOURS).astype(int) % COLOURS
    expected = hues[turn] * np.clip(np.abs(stack.field(0.0)) / 2, 0, 1)[..., None]
    # The phase differs in its last digits, and with it now and then the hue, of which there are 256.
    assert (np.abs(tile - expected).max(axis=2) > 3).mean() < 0.02


def test_hues_are_equally_light() -> None:
    lightness = palette("hue") @ [0.2126, 0.7152, 0.0722]
    assert np.ptp(lightness) < 0.2 * lightness.mean()
    assert len({tuple(colour) for colour in palette("hue").tolist()}) > 200


def test_raw_images(scene: Scene, dataset: Dataset) -> None:
    for k in (0, 4, 8):
        image = np.asarray(dataset.images[k])
        top = float(image.max())
        assert near(pixels(scene.tile(2, "raw", k, 0, 0, 0, low=0, high=top)), levels_of(image, 0, top))


def test_a_spectrum_has_its_peak_where_the_light_comes_from(scene: Scene, dataset: Dataset) -> None:
    """In a raw image the zero frequency, in a plane wave its own."""
    about = scene.describe()["sources"][2]["layers"]["spectrum"]
    assert about["shape"] == [25, 25], "square, as what is drawn is"
    values = scene.sources[2].overview("spectrum", 4)
    assert np.unravel_index(values.argmax(), values.shape) == (12, 12)
    assert about["origin"][0] + 12 * about["pixel"][1] == pytest.approx(0)
    h, w, frequency = 40, 31, np.array([5, -7])  # (x, y) in steps of the spectrum
    y, x = np.mgrid[:h, :w]
    wave = np.exp(2j * np.pi * (frequency[0] * x / w + frequency[1] * y / h)).astype(np.complex64)
    plane = PlaneStack(wave[None], (0.0,), Grid((h, w), (20.0, 15.5), (0.0, 0.0)))
    own = Scene([FieldSource.of(plane, "wave", Kept())])
    row, column = np.unravel_index(own.sources[0].overview("spectrum", 0.0).argmax(), (h, h))
    about = own.describe()["sources"][0]["layers"]["spectrum"]
    found = [about["origin"][k] + (column, row)[k] * about["pixel"][1 - k] for k in (0, 1)]
    assert found == pytest.approx(frequency / np.array([15.5, 20.0]), abs=0.5 / 20.0)
    assert about["pixel"] == pytest.approx([1 / 20, 1 / 20])
    own.close()


class Mosaic(PlaneStack):
    """Gives regions itself, and must never be asked for all of it."""

    asked: list[tuple[float, tuple[int, int, int, int], int]]

    def region(self, z_um: float | None, box: tuple[int, int, int, int], level: int = 0) -> NDArray[np.complex64]:
        assert z_um is not None
        self.asked.append((z_um, box, level))
        y, x, height, width = box
        values = self.planes[0][y : y + height, x : x + width]
        assert values.shape == (height, width)
        for _ in range(level):
            values = halved(values)
        return np.asarray(values)

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        raise AssertionError("a mosaic was rendered whole")


@pytest.fixture
def mosaic(smooth_field: Callable[..., NDArray[np.complex64]]) -> Mosaic:
    field = smooth_field((1300, 2101))
    mosaic = Mosaic(field[None], (0.0,), Grid((1300, 2101), (130.0, 210.1), (0.0, 0.0)))
    mosaic.asked = []
    return mosaic


@pytest.fixture
def smooth_field() -> Callable[..., NDArray[np.complex64]]:
    def make(shape: tuple[int, int]) -> NDArray[np.complex64]:
        y, x = (np.linspace(0, 1, n) for n in shape)
        wave = 1 + 0.3 * np.cos(2 * np.pi * (9 * y[:, None] + 13 * x))
        return (wave * np.exp(1j * 14 * (y[:, None] + x**2))).astype(np.complex64)

    return make


def test_a_mosaic_is_asked_for_tiles_only(mosaic: Mosaic) -> None:
    assert isinstance(mosaic, InParts)
    source = FieldSource.of(mosaic, "mosaic", Kept())
    scene = Scene([source])
    assert source.layer_levels("amplitude") == 4
    tile = pixels(scene.tile(0, "amplitude", 0.0, 0, 3, 1, **RANGE))
    part = mosaic.planes[0][511:1025, 1535:2049]
    assert near(tile, levels_of(np.abs(part), 0.2, 1.5))
    edge = pixels(scene.tile(0, "phase", 0.0, 1, 2, 1, low=-math.pi, high=math.pi))
    assert edge.shape == (650 - 511, 1051 - 1023)
    assert max(box[2] * box[3] >> (2 * level) for _, box, level in mosaic.asked) <= (512 + 2 * OVERLAP) ** 2
    scene.close()


def test_the_unwrapped_phase_of_a_large_field_is_continued_into_its_finest_level(mosaic: Mosaic) -> None:
    """It is unwrapped at a coarser level, and must still be the wrapped one plus whole turns, without a step."""
    source = FieldSource.of(mosaic, "mosaic", Kept())
    for level in (0, 1, 2):
        h, w = level_shape(source.shape, level)
        whole = source.values("unwrapped", 0.0, Box(0, 0, h, w), level)
        assert np.ptp(whole) > 20
        assert max(np.abs(np.diff(whole, axis=axis)).max() for axis in (0, 1)) < math.pi / 2
        if level <= 1:
            turns = (whole - source.values("phase", 0.0, Box(0, 0, h, w), level)) / (2 * math.pi)
            assert np.abs(turns - np.round(turns)).max() < 1e-3


def test_a_phase_with_residues_takes_its_turns_from_a_coarser_level() -> None:
    """Noise makes several answers at full size; without its coarser pixels there is one, or it is soon found."""
    rng, (h, w) = np.random.default_rng(3), (270, 301)
    truth = 2 * np.pi * (3 * (np.arange(h) / h)[:, None] ** 2 + np.arange(w) / w)
    noisy = np.exp(1j * truth) + 0.45 * (rng.normal(size=(h, w)) + 1j * rng.normal(size=(h, w)))
    result = PlaneStack(noisy.astype(np.complex64)[None], (0.0,), Grid((h, w), (27.0, 30.1), (0.0, 0.0)))
    source, box = FieldSource.of(result, "noisy", Kept()), Box(0, 0, h, w)
    wrapped, found = (source.values(layer, 0.0, box, 0) for layer in ("phase", "unwrapped"))
    assert not is_unique(wrapped)
    turns = (found - wrapped) / (2 * math.pi)
    assert np.abs(turns - np.round(turns)).max() < 1e-3
    off = found - truth
    assert (np.abs(off - np.median(off)) > math.pi).mean() < 0.01


def test_levels() -> None:
    assert [level_shape((7, 12), k) for k in range(5)] == [(7, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert levels((512, 512)) == 1
    assert levels((513, 4)) == 2
    assert halved(np.arange(15.0).reshape(3, 5)).tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
    kept = Kept()
    pyramid = Pyramid(lambda at: np.full((9, 5), at), kept)
    for level in range(4):
        h, w = level_shape((9, 5), level)
        assert np.array_equal(pyramid.region(2.5, Box(0, 0, h, w), level), np.full((h, w), 2.5))


def test_what_is_kept_is_bounded() -> None:
    kept, made = Kept(10_000), []

    def make(key: int) -> Callable[[], NDArray[Any]]:
        return lambda: made.append(key) or np.zeros(500)  # 4000 bytes

    for key in (1, 2, 1, 3, 1, 2):
        kept.get(key, make(key))
        assert kept.nbytes <= 10_000
    assert made == [1, 2, 3, 2]
    kept.get("large", lambda: np.zeros(5000))
    assert kept.nbytes == 40_000


def test_values_and_profiles(scene: Scene, stack: PlaneStack, dataset: Dataset) -> None:
    field, phase = stack.field(0.5), stack.phase(0.5)
    found = scene.at(0, "amplitude", 0.5, x=41, y=7)
    assert found["amplitude"]["value"] == pytest.approx(abs(field[7, 41]), rel=1e-6)
    assert found["phase"] == {"value": pytest.approx(phase[7, 41], abs=1e-5), "unit": "rad"}
    assert scene.at(2, "raw", 3, x=2, y=1)["raw"]["value"] == pytest.approx(float(dataset.images[3][1, 2]))
    row = scene.profile(0, "amplitude", 0.5, (10, 7), (40, 7))
    assert row["values"] == pytest.approx(np.abs(field[7, 10:41]), rel=1e-5)
    assert row["distance"] == pytest.approx(np.arange(31) * 0.345 * 25 / 50)
    column = scene.profile(0, "phase", 0.5, (10, 30), (10, 12))
    assert column["values"] == pytest.approx(phase[30:11:-1, 10], abs=1e-4)
    assert column["unit"] == "rad"
    slanted = scene.profile(2, "raw", 3, (1, 2), (5, 5))  # length 5 pixels of 0.345 µm
    assert slanted["distance"][-1] == pytest.approx(5 * 0.345)
    outside = scene.profile(0, "amplitude", 0.5, (-1e9, 3), (1e9, 3))
    assert outside["values"] == pytest.approx(np.abs(field[3]), rel=1e-5)
    long = scene.profile(1, "amplitude", 1.5, (0, 0), (1100, 699))
    assert len(long["values"]) <= 2048
    assert long["distance"][-1] == pytest.approx(math.hypot(110.0, 69.9))


def test_scales(scene: Scene, stack: PlaneStack) -> None:
    found = scene.scale(0, "amplitude", 0.0)
    low, high = np.percentile(stack.amplitude(0.0), (0.2, 99.8))
    assert (found["low"], found["high"], found["colours"]) == (pytest.approx(low), pytest.approx(high), "gray")
    assert sum(found["counts"]) == 36 * 50
    assert scene.scale(0, "phase", 0.0)["colours"] == "cyclic"
    assert scene.scale(0, "phase", 0.0)["high"] == pytest.approx(math.pi)
    assert scene.scale(1, "phase", 1.5)["colours"] == "viridis"
    assert scene.scale(0, "colour", 0.0)["low"] == 0
    assert scene.scale(0, "spectrum", 0.0)["high"] == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.tile(9, "amplitude", 0, 0, 0, 0, **RANGE), "3 things"),
        (lambda s: s.tile(-1, "amplitude", 0, 0, 0, 0, **RANGE), "3 things"),
        (lambda s: s.tile(0, "amplitud", 0, 0, 0, 0, **RANGE), "did you mean 'amplitude'"),
        (lambda s: s.tile(2, "phase", 0, 0, 0, 0, **RANGE), "unknown layer of images"),
        (lambda s: s.tile(0, "amplitude", 9, 0, 0, 0, **RANGE), "outside the range"),
        (lambda s: s.tile(0, "amplitude", math.nan, 0, 0, 0, **RANGE), "nan is no z"),
        (lambda s: s.tile(2, "raw", 9, 0, 0, 0, **RANGE), "image 9"),
        (lambda s: s.tile(2, "raw", 0.5, 0, 0, 0, **RANGE), "image 0.5"),
        (lambda s: s.tile(2, "raw", math.inf, 0, 0, 0, **RANGE), "inf is no image"),
        (lambda s: s.tile(0, "amplitude", 0, 1, 0, 0, **RANGE), "levels 0 … 0"),
        (lambda s: s.tile(0, "amplitude", 0, -1, 0, 0, **RANGE), "no level"),
        (lambda s: s.tile(0, "amplitude", 0, 10**9, 0, 0, **RANGE), "no level"),
        (lambda s: s.tile(1, "amplitude", 1.5, 0, 3, 0, **RANGE), "no tile in column 3"),
        (lambda s: s.tile(1, "amplitude", 1.5, 0, 0, -1, **RANGE), "no tile"),
        (lambda s: s.tile(0, "amplitude", 0, 0, 0, 0, low=1, high=1), "is empty"),
        (lambda s: s.tile(0, "amplitude", 0, 0, 0, 0, low=math.nan, high=1), "is empty"),
        (lambda s: s.tile(0, "amplitude", 0, 0, 0, 0, **RANGE, colours="jet"), "unknown colour map"),
        (lambda s: s.at(0, "amplitude", 0, x=50, y=0), "is not in it"),
        (lambda s: s.profile(0, "amplitude", 0, (0, 0), (math.inf, 1)), "finite"),
    ],
)
def test_what_is_not_there_is_refused(scene: Scene, call: Callable[[Scene], object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        call(scene)


def test_a_result_that_is_no_number_in_places(stack: PlaneStack) -> None:
    """What has diverged is shown too: 0 where there is no number, and the range is that of the rest."""
    planes = stack.planes.copy()
    planes[:, 3:9, 5:20], planes[:, 20, 20] = np.nan, np.inf
    scene = Scene([FieldSource.of(PlaneStack(planes, stack.z_um, stack.grid), "broken", Kept())])
    for layer in scene.sources[0].layers:
        found = scene.scale(0, layer, 0.0)
        assert found["low"] < found["high"] < 100
        tile = pixels(scene.tile(0, layer, 0.0, 0, 0, 0, low=found["low"], high=found["high"]))
        assert np.ptp(tile) > 50
    tile = pixels(scene.tile(0, "amplitude", 0.0, 0, 0, 0, **RANGE))
    assert not tile[3:9, 5:20].any()
    assert math.isnan(scene.at(0, "amplitude", 0.0, 6, 4)["amplitude"]["value"])
    scene.close()


def test_one_at_a_time(stack: PlaneStack) -> None:
    """A solver's code is never called by two threads at once, however many ask."""
    from concurrent.futures import ThreadPoolExecutor

    inside, most, field = [0], [0], stack.field

    class Slow(PlaneStack):
        def native_field(self, z_um: float) -> NDArray[np.complex64]:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            found = np.array(field(z_um))
            inside[0] -= 1
            return found

    scene = Scene([FieldSource.of(Slow(stack.planes, stack.z_um, stack.grid), "slow", Kept())])
    with ThreadPoolExecutor(8) as pool:
        z = [k % 7 / 2 - 1 for k in range(40)]
        tiles = list(pool.map(lambda at: scene.tile(0, "amplitude", at, 0, 0, 0, **RANGE), z))
    assert most[0] == 1
    for at, tile in zip(z, tiles, strict=True):
        assert near(pixels(tile), levels_of(stack.amplitude(at), 0.2, 1.5))
    scene.close()
