"""A run in several colours in the viewer and in its report."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpmtools.errors import OptionError
from fpmtools.report import html_page
from fpmtools.results import open_result
from fpmtools.viewer.opening import opened
from fpmtools.viewer.regions import Box
from fpmtools.viewer.scene import Scene


@pytest.fixture(scope="module")
def scene(done: Path):
    found = opened([str(done)])
    assert found.notes == []
    scene = Scene(found.sources, "colours")
    yield scene
    scene.close()


def test_the_picture_and_each_colour_with_its_own_images(scene: Scene, done: Path):
    whole = open_result(done)
    fields = [source for source in scene.sources if source.kind == "field"]
    assert [(source.name, source.layers[0]) for source in fields] == [
        ("ap (run)", "truecolour"), *((f"ap (run) · {name}", "amplitude") for name in "rgb")
    ]  # fmt: skip
    told = scene.describe()["sources"]
    raw = [told[one["raw"]]["name"] for one in told if one["kind"] == "field"]
    assert raw == [f"raw images · {name}" for name in "grgb"], "the picture's are those of the reference"
    assert [told[k]["lights"]["wavelength_um"] for k in range(1, 4)] == [0.632, 0.53, 0.47]
    assert "pixels (x, y)" in told[0]["facts"]["r, moved"]
    assert np.allclose(scene.sources[2].overview("amplitude", 0.0), whole.channel("g").amplitude(0.0), atol=1e-6)


def test_tiles_and_numbers_of_the_picture(scene: Scene, done: Path):
    expected = open_result(done).colour(0.0)
    png = scene.tile(0, "truecolour", 0.0, 0, 0, 0, low=0.0, high=1.0, colours="truecolour")
    assert np.abs(np.asarray(Image.open(io.BytesIO(png)), float) - 255 * expected).max() <= 0.51
    scale = scene.scale(0, "truecolour", 0.0)
    assert (scale["low"], scale["high"], scale["colours"]) == (0.0, 1.0, "truecolour")
    at = scene.at(0, "truecolour", 0.0, 7, 11)
    assert [at[name]["value"] for name in ("red", "green", "blue")] == pytest.approx(expected[11, 7].tolist(), abs=3e-3)
    line = scene.profile(0, "truecolour", 0.0, (3, 5), (23, 5))
    assert line["values"] == pytest.approx(expected[5, 3:24] @ [0.2126, 0.7152, 0.0722], abs=3e-3)
    part = scene.sources[0].values("truecolour", 0.0, Box(2, 4, 6, 8), 0)
    assert np.allclose(part, expected[2:8, 4:12], atol=3e-3)  # a part is interpolated by itself
    with pytest.raises(OptionError, match="outside the range"):
        scene.at(0, "truecolour", 99.0, 7, 11)
    with pytest.raises(OptionError, match="layer"):
        scene.scale(0, "amplitude", 0.0)


def test_the_file_alone(done: Path):
    found = opened([str(done / "reconstruction.safetensors")])
    assert [source.name.split(" · ")[-1] for source in found.sources] == ["reconstruction", "r", "g", "b"]


def test_the_report(done: Path, tmp_path: Path):
    folder = Path(shutil.copytree(done, tmp_path / "run"))
    page = html_page.write(folder).read_text()
    assert "λ 632, 530, 470 nm" in page
    heads = re.findall(r'<th scope="row"><bdi>(.*?)</bdi>', page)
    assert heads[:3] == ["r, 632 nm", "g, 530 nm", "b, 470 nm"]
    table = re.search(r'<section id="colour".*?</section>', page, re.DOTALL)
    assert table is not None
    place = open_result(folder).parts["r"].place
    assert f"{place.shift[1]:+.2f}, {place.shift[0]:+.2f}".replace("-", "−") in table[0]
    assert f"{place.correlation:.3f}" in table[0]
    kind, data = re.search(r'src="data:image/(\w+);base64,([^"]+)"', table[0]).groups()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float) / 255
    assert np.abs(picture - open_result(folder).colour(0.0)).mean() < 0.02, kind
    shown = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["galleries"][0]["sources"]
    assert [one["name"] for one in shown] == ["r, 632 nm", "g, 530 nm", "b, 470 nm", "raw image 12 of r, 632 nm"]
    assert all(one["planes"][0] for one in shown[:3]), "each is drawn at the z of all"
