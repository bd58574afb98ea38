from __future__ import annotations

import subprocess
import sys

import imageio_ffmpeg
import matplotlib
import numpy as np
import pytest
from PIL import Image

import fpmtools
from fpmtools.errors import OutputError
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


@pytest.mark.parametrize("shape", [(48, 65), (91, 17)])
def test_mp4_has_the_frames_of_the_gif(cells, tmp_path, shape):
    stack = np.array([cells(*shape, seed=k) for k in range(5)])
    z_um, extent = np.linspace(-4, 4, 5), (shape[0] * 0.2, shape[1] * 0.2)
    film = video.write_mp4(tmp_path / "a.mp4", np.abs(stack), np.angle(stack), z_um, extent)
    gif = list(frames(video.write_gif(tmp_path / "a.gif", np.abs(stack), np.angle(stack), z_um, extent)))
    height, width = (n + n % 2 for n in gif[0].shape[:2])
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(program, capture_output=True, check=True, timeout=60)
    assert f"h264 (High) (avc1 / 0x31637661), yuv420p(progressive), {width}x{height}".encode() in done.stderr
    assert b" 2 fps" in done.stderr
    shown = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    assert len(shown) == 5
    for found, expected in zip(shown, gif, strict=True):
        part = found[: expected.shape[0], : expected.shape[1]].astype(float)
        assert np.abs(part - expected).mean() < 6


def test_without_ffmpeg_the_way_out_is_named(tmp_path):
    code = """
import sys
sys.modules["imageio_ffmpeg"] = None
from fpmtools.cli import main
sys.exit(main(["render", sys.argv[1], "--out", sys.argv[1] + ".mp4"]))
"""
    data = fpmtools.simulate("thin", image_shape=(16, 24))
    file = fpmtools.reconstruct(data, "ap", options={"sweeps": 1}).save(tmp_path / "a.safetensors")
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, timeout=120, check=False)
    assert not list(tmp_path.glob("*.mp4"))
    assert done.returncode == 5
    assert done.stderr.splitlines() == [
        "error: MP4 needs the package imageio-ffmpeg: pip install 'fpmtools[video]'; or write .gif"
    ]


def test_what_ffmpeg_cannot_write_is_said(tmp_path):
    ones = np.ones((2, 12, 20), np.float32)
    with pytest.raises(OutputError, match="No such file or directory"):
        video.write_mp4(tmp_path / "nowhere" / "a.mp4", ones, ones, (0.0, 1.0), (12.0, 20.0))
