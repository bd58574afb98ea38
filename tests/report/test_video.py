from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from PIL import Image

from fpmtools.report import video


def frames(path):
    with Image.open(path) as gif:
        for k in range(gif.n_frames):
            gif.seek(k)
            yield np.asarray(gif.convert("RGB"))


@pytest.mark.parametrize("shape", [(48, 65), (91, 17), (13, 200), (401, 700)])
def test_one_frame_per_plane_and_no_larger_than_promised(cells, tmp_path, shape):
    stack = np.array([cells(*shape, seed=k) for k in range(5)])
    z_um = np.linspace(-4, 4, 5)
    extent = (shape[0] * 0.2, shape[1] * 0.2)
    path = video.write_gif(tmp_path / "stack.gif", np.abs(stack), np.angle(stack), z_um, extent)
    with Image.open(path) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        assert max(gif.size) <= video.LONGEST + 80
    assert len({frame.tobytes() for frame in frames(path)}) == 5


def test_constant_stack_still_has_all_frames(tmp_path):
    ones = np.ones((7, 12, 20), np.float32)
    path = video.write_gif(tmp_path / "stack.gif", ones, 0 * ones, range(7), (12.0, 20.0))
    assert len(list(frames(path))) == 7


def test_contrast_is_common_and_orientation_kept(tmp_path):
    """A dark and a bright plane with one marker in the first rows and first columns."""
    amplitude = np.stack([np.full((40, 60), level) for level in (0.25, 0.5, 1.0)])
    amplitude[:, :20, :15] = 0.0
    phase = np.zeros_like(amplitude)
    path = video.write_gif(tmp_path / "stack.gif", amplitude, phase, (0.0, 1.0, 2.0), (4.0, 6.0))
    layout = video._Layout.choose((4.0, 6.0))
    (x, y), (width, height) = layout.corners[0], layout.size
    for frame, level in zip(frames(path), (0.25, 0.5, 1.0), strict=True):
        picture = frame[y : y + height, x : x + width]
        assert picture[height // 4, width // 8].max() == 0  # the marker
        for row, column in ((height * 3 // 4, width // 8), (height // 4, width // 2)):
            np.testing.assert_allclose(picture[row, column], 255 * level, atol=4)


def test_phase_is_averaged_across_the_wrap():
    phase = np.tile(np.array([3.1, -3.1]), (40, 400))
    assert np.abs(video._resized_phase(phase, (300, 40))).min() > 3.0


def test_phase_has_the_colours_of_the_still_figures(tmp_path):
    phase = np.tile(np.linspace(-0.5, 0.5, 60), (3, 40, 1))
    path = video.write_gif(tmp_path / "stack.gif", np.ones_like(phase), phase, (0.0, 1.0, 2.0), (4.0, 6.0))
    layout = video._Layout.choose((4.0, 6.0))
    (x, y), (width, height) = layout.corners[1], layout.size
    row = next(frames(path))[y + height // 2, x : x + width].astype(float)
    for column, share in ((2, 0.0), (width // 2, 0.5), (width - 3, 1.0)):
        expected = 255 * np.array(matplotlib.colormaps["viridis"](share)[:3])
        np.testing.assert_allclose(row[column], expected, atol=8)
