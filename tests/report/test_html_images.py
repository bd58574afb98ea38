from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fpmtools.optics import resample
from fpmtools.reconstruction import Grid, PlaneStack, without_piston
from fpmtools.report import html_folder, html_images, rendering


def values(uri: str, scale: dict) -> np.ndarray:
    """What a picture shows: its levels over the range of the scale."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    low, high = scale["range"]
    return low + np.asarray(image.convert("L")) / 255 * (high - low)


def folder_of(shape: tuple[int, int], planes: int, *, noise: float = 0.0) -> html_folder.Folder:
    """Two solvers of which the second covers only half of the z range; no truth."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    field = (1 - 0.4 * np.sin(7 * y)) * np.exp(2.5j * np.cos(5 * x))
    rows = []
    for name, count in (("whole", planes), ("half", planes // 2 + 1)):
        z_um = tuple(float(z) for z in range(count))
        grain = rng.normal(size=(2, *shape))
        stack = np.stack([(field + noise * (grain[0] + 1j * grain[1])).astype(np.complex64)] * count)
        row = html_folder.Row(name, "d", {}, [{"z_um": list(range(planes))}], None)
        result = PlaneStack(stack, z_um, Grid(shape, (10.0, 16.0), (0.0, z_um[-1])))
        row.__dict__["rendered"] = rendering.render(result, [float(z) for z in range(planes)], None)
        rows.append(row)
    return html_folder.Folder(None, {}, rows, {})


@pytest.mark.parametrize("shape", [(33, 50), (61, 20)])
def test_amplitude_and_phase_are_those_of_the_field(shape):
    folder = folder_of(shape, 3)
    (gallery,) = html_images.galleries(folder)
    assert gallery["shape"] == list(shape)
    assert gallery["extent_um"] == [10.0, 16.0]
    field = folder.rows[0].rendered.plane(1.0, shape)
    field = field * np.exp(-1j * np.angle(field.sum()))
    shown = gallery["sources"][0]["planes"][1]
    amplitude, phase = (values(shown[name], gallery["scales"][name]) for name in ("amplitude", "phase"))
    low, high = gallery["scales"]["amplitude"]["range"]
    assert np.abs(amplitude - np.clip(np.abs(field), low, high)).mean() < 0.03 * (high - low)
    assert gallery["scales"]["phase"]["cyclic"] == (shape == (33, 50)), "the narrow one goes through less of it"
    turned = np.angle(np.exp(1j * phase) * np.conj(field))
    assert np.abs(turned).max() <= np.pi / 255 + 1e-3


def test_a_phase_that_does_not_wrap_has_a_scale_of_its_own():
    folder = folder_of((20, 31), 3)
    for row in folder.rows:
        planes = row.rendered.planes
        planes[...] = np.abs(planes) * np.exp(0.1j * np.angle(planes))
    (gallery,) = html_images.galleries(folder)
    scale = gallery["scales"]["phase"]
    assert not scale["cyclic"]
    assert -0.5 < scale["range"][0] < scale["window"][0] < scale["window"][1] < scale["range"][1] < 0.5
    field = without_piston(folder.rows[0].rendered.plane(1.0, (20, 31)))
    shown = values(gallery["sources"][0]["planes"][1]["phase"], scale)
    assert np.abs(shown - np.angle(field)).max() <= 0.51 * np.ptp(scale["range"]) / 255


def test_the_raw_image_lies_on_the_result():
    """Its first sample is where the result's first is, not its first block's corner."""
    folder = folder_of((20, 30), 3)
    raw = np.arange(150, dtype=np.float32).reshape(10, 15) / 150
    row = folder.rows[0]
    row.__dict__["rendered"] = replace(row.rendered, measured=rendering.Measured(raw, 7))
    (gallery,) = html_images.galleries(folder)
    source = gallery["sources"][-1]
    assert (source["name"], source["kind"], source["planes"]) == ("raw image 7", "raw", [None] * 3)
    shown = values(source["focus"]["amplitude"], gallery["scales"]["amplitude"])
    low, high = gallery["scales"]["amplitude"]["range"]
    np.testing.assert_allclose(shown[::2, ::2], np.clip(raw, low, high), atol=0.1)
    window = gallery["scales"]["amplitude"]["window"]
    raw *= 1.6 * high
    row.__dict__["rendered"] = replace(row.rendered, measured=rendering.Measured(raw, 7))
    (brighter,) = html_images.galleries(folder)
    scale = brighter["scales"]["amplitude"]
    assert scale["window"] == window
    assert values(brighter["sources"][-1]["focus"]["amplitude"], scale).max() > 1.5 * high, "nothing is cut off"
    blocks = html_images._enlarged(raw, (20, 30))
    np.testing.assert_array_equal(blocks[::2, ::2], raw)
    np.testing.assert_array_equal(blocks[1:-1:2, ::2], raw[1:])


def test_a_plane_outside_a_solvers_range_is_none():
    (gallery,) = html_images.galleries(folder_of((20, 31), 5))
    whole, half = ([plane is not None for plane in source["planes"]] for source in gallery["sources"])
    assert whole == [True] * 5
    assert half == [True, True, True, False, False]


def test_planes_and_pixels_are_bounded_and_resampling_is_band_limited():
    folder = folder_of((300, 600), 61)
    (gallery,) = html_images.galleries(folder)
    assert len(gallery["z_um"]) == rendering.MOST_PLANES
    assert (gallery["z_um"][0], gallery["z_um"][-1]) == (0, 60)
    assert gallery["shape"] == [256, 512]
    low, high = gallery["scales"]["amplitude"]["range"]
    expected = np.abs(resample(folder.rows[0].rendered.middle, (256, 512)))  # all planes are the same
    shown = values(gallery["sources"][0]["planes"][0]["amplitude"], gallery["scales"]["amplitude"])
    assert np.abs(shown - np.clip(expected, low, high)).mean() < 0.02 * (high - low)


def test_bytes_are_bounded_by_fewer_pixels(monkeypatch):
    monkeypatch.setattr(html_images, "MOST_BYTES", 1_500_000)
    (gallery,) = html_images.galleries(folder_of((256, 380), 21, noise=0.2))
    assert 64 <= max(gallery["shape"]) < 380
    assert gallery["shape"][0] / gallery["shape"][1] == pytest.approx(256 / 380, rel=0.03)
    uris = [uri for s in gallery["sources"] for plane in s["planes"] if plane for uri in plane.values()]
    assert 500_000 < sum(len(uri) * 3 / 4 for uri in uris) < 1_800_000


def test_errors_share_one_scale_and_the_truth_comes_last(comparison_folder):
    folder = html_folder.read(comparison_folder)
    (gallery,) = html_images.galleries(folder)
    assert [source["name"] for source in gallery["sources"]] == ["good", "noisy:step=2", "truth"]
    assert [source["colour"] for source in gallery["sources"]] == [0, 1, -1]
    scale = gallery["scales"]["error"]
    assert scale["window"] == [0, gallery["error_max"]]
    good, noisy = (values(source["focus"]["error"], scale) for source in gallery["sources"][:2])
    assert good.shape == (36, 50)
    (truth,) = folder.truths.values()
    for row, shown in zip(folder.rows, (good, noisy), strict=False):
        error = np.abs(truth.field - folder.in_focus(row).field)
        assert np.abs(shown - np.clip(error, *scale["range"])).max() <= 0.51 * scale["range"][1] / 255
    assert "error" not in gallery["sources"][2]["focus"]


def test_without_a_result_there_is_no_gallery(comparison_folder):
    folder = html_folder.read(comparison_folder)
    assert html_images.galleries(replace(folder, rows=folder.rows[2:])) == []


def test_one_wild_solver_does_not_decide_the_grey_scale():
    folder = folder_of((20, 31), 3)
    wild = folder.rows[1].rendered
    tame = [*folder.rows, html_folder.Row("third", "d", {}, [], None)]
    tame[2].__dict__["rendered"] = folder.rows[0].rendered
    wild.planes[:] *= np.complex64(100)
    (gallery,) = html_images.galleries(replace(folder, rows=tame))
    assert gallery["scales"]["amplitude"]["window"][1] < 2
