"""Several colours of a sample: each at its own focus, brought onto each other, white where there is none; as files."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import binary_erosion

import fpmtools
from fpmtools.cli import main
from fpmtools.colour.result import ColourReconstruction, srgb
from fpmtools.errors import DataError, OptionError
from fpmtools.runs import running
from fpmtools.runs.folder import sha256
from fpmtools.runs.spec import ChannelSpec, RunSpec, TilesSpec


def opened(folder: Path) -> ColourReconstruction:
    found = fpmtools.open_result(folder)
    assert isinstance(found, ColourReconstruction)
    return found


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*.safetensors"))}


def test_each_colour_is_found_at_its_own_place_and_depth(solved: Path, sample: Any) -> None:
    result, document = opened(solved), json.loads((solved / "run.json").read_text())
    assert document["status"] == "done"
    assert result.channels == ("r", "g", "b")
    assert document["reference"] == result.reference == "g"
    for name, part in result.parts.items():
        expected = np.subtract(sample.shifts[name], sample.shifts["g"])
        np.testing.assert_allclose(part.place.shift, expected, atol=0.1)
        assert document["channels"][name]["z_um"][0] == pytest.approx(sample.focus_um[name], abs=8)
        assert part.place.scale == 0


def test_the_picture_is_that_of_the_sample(solved: Path, sample: Any) -> None:
    result = opened(solved)
    truth = np.stack([np.abs(sample.fields[name]) ** 2 for name in "rgb"], axis=-1)
    inside = binary_erosion(sample.clear, iterations=4)
    light = np.stack([result.intensity(name, None, (0, 0, *result.grid.shape)) for name in "rgb"], axis=-1)
    clear = light[inside].mean(axis=0)
    np.testing.assert_allclose(clear / clear.mean(), 1, atol=0.01)
    np.testing.assert_allclose(clear, 1, atol=0.02)
    picture = result.colour()
    assert picture.shape == truth.shape
    assert picture.dtype == np.float32
    assert np.sqrt(np.mean((picture - srgb(truth)) ** 2)) < 0.015
    wrong = np.abs(picture - srgb(truth))[~sample.clear].mean()
    assert wrong < 0.5 * np.abs(picture[..., ::-1] - srgb(truth))[~sample.clear].mean(), "red is red, and blue blue"
    half = result.colour(level=1)
    assert half.shape == (56, 70, 3)
    np.testing.assert_allclose(result.colour(box=(8, 10, 40, 50)), picture[8:48, 10:60], atol=2e-3)


def test_optical_paths_are_those_of_the_sample_in_every_colour(solved: Path, sample: Any) -> None:
    result, inside = opened(solved), binary_erosion(sample.clear, iterations=4)
    for name in "rgb":
        channel = result.channel(name)
        path, truth = channel.optical_path_nm(), np.angle(sample.fields[name]) * 1e3 * sample.waves[name] / (2 * np.pi)
        assert abs(np.median(path[inside])) < 10
        assert np.corrcoef(path.ravel(), truth.ravel())[0, 1] > 0.92, "slow phases are seen worst"
        assert np.polyfit(truth.ravel(), path.ravel(), 1)[0] == pytest.approx(1, abs=0.2), "the sign too"
    np.testing.assert_array_equal(result.phase(flatten=True), result.channel("g").phase(flatten=True))


class Stop(Exception):
    """As good as a kill."""


def test_a_resumed_run_ends_as_one_without_a_stop(quick: RunSpec, done: Path, tmp_path: Path) -> None:
    folder, seen = tmp_path / "stopped", []

    def leave(event: dict[str, Any]) -> None:
        seen.append(event)
        if (folder / "channels" / "g").is_dir() and event["event"] == "progress":
            raise Stop

    with pytest.raises(Stop):
        running.run(quick, folder, on_event=leave)
    assert (folder / "channels" / "r" / "reconstruction.safetensors").is_file()
    assert not (folder / "reconstruction.safetensors").exists()
    first = (folder / "channels" / "r" / "run.json").stat().st_mtime_ns
    document = running.resume(folder)
    assert document["status"] == "done"
    assert (folder / "channels" / "r" / "run.json").stat().st_mtime_ns == first, "what is finished is left alone"
    assert files(folder) == files(done)
    stamps = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert running.resume(folder)["status"] == "done"
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == stamps


def test_ctrl_c_ends_the_colour_under_way_and_no_other_begins(quick: RunSpec, tmp_path: Path) -> None:
    folder, long = tmp_path / "interrupted", replace(quick, options={"sweeps": 300, "stop_below": 0.0})
    sent: list[int] = []

    def interrupt(event: dict[str, Any]) -> None:
        if (folder / "channels" / "g").is_dir() and event["event"] == "progress" and not sent:
            sent.append(signal.SIGINT)  # a second one would end it at once
            signal.raise_signal(signal.SIGINT)

    assert running.run(long, folder, on_event=interrupt)["status"] == "interrupted"
    assert not (folder / "channels" / "b").exists()


def test_a_damaged_colour_is_told_of_and_solved_again(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(done, folder)
    file = folder / "channels" / "b" / "reconstruction.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged: its checksum is another; resume the run"):
        opened(folder).colour()
    np.testing.assert_array_equal(opened(folder).field(), opened(done).field())
    assert running.resume(folder)["status"] == "done"
    assert files(folder) == files(done)
    shutil.rmtree(folder / "channels" / "r")
    (folder / "colour.png").unlink()
    running.resume(folder)
    assert files(folder) == files(done)
    assert (folder / "colour.png").read_bytes() == (done / "colour.png").read_bytes()


def test_nothing_outside_of_its_folder_is_opened(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    shutil.copytree(done, folder)
    shutil.rmtree(folder / "channels" / "g")
    (folder / "channels" / "g").symlink_to(done / "channels" / "g")
    with pytest.raises(DataError, match="channels/g does not lie in this folder"):
        opened(folder).field()


def test_tiles_of_colours(quick: RunSpec, done: Path, tmp_path: Path) -> None:
    spec = replace(quick, tiles=TilesSpec(44, 16), margin=0, outputs=replace(quick.outputs, pictures=()))
    document = running.run(spec, tmp_path / "tiled")
    result = opened(tmp_path / "tiled")
    assert document["status"] == "done"
    assert result.result("r").kind == "mosaic"
    whole = result.colour()
    np.testing.assert_allclose(result.colour(box=(30, 20, 50, 64)), whole[30:80, 20:84], atol=2e-3)
    assert result.colour(level=2).shape == (28, 35, 3)
    assert np.corrcoef(whole.ravel(), opened(done).colour().ravel())[0, 1] > 0.8


def test_files_of_other_programs(done: Path, tmp_path: Path) -> None:
    assert main(["render", str(done), "--out", str(tmp_path / "a.png")]) == 0
    with Image.open(tmp_path / "a.png") as file:
        picture = np.asarray(file)
    np.testing.assert_array_equal(picture, np.rint(255 * opened(done).colour()).astype(np.uint8))
    assert main(["render", str(done), "--shape", "56,70", "--out", str(tmp_path / "b.png")]) == 0
    with Image.open(tmp_path / "b.png") as file:
        assert file.size == (70, 56)
    assert main(["render", str(done), "--out", str(tmp_path / "a.ome.tiff")]) == 0
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as tiff:
        pages = tiff.asarray()
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    assert pages.shape == (3, *opened(done).grid.shape)
    np.testing.assert_allclose(pages[1], opened(done).intensity("g", None, (0, 0, *pages.shape[1:])), rtol=1e-5)
    found = [e.attrib for e in root.iter() if e.tag.endswith("Channel")]
    assert [(e["Name"], float(e["EmissionWavelength"])) for e in found] == [("r", 632.0), ("g", 530.0), ("b", 470.0)]
    assert [int(e["Color"]) & 0xFFFFFFFF for e in found] == [0xFF0000FF, 0x00FF00FF, 0x0000FFFF]
    words = ["--channels", "phase,path", "--out", str(tmp_path / "p.tiff")]
    assert main(["render", str(done), *words]) == 0
    assert tifffile.imread(tmp_path / "p.tiff").shape == (6, *pages.shape[1:])
    assert main(["render", str(done), "--channel", "r", "--out", str(tmp_path / "r.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "r.npy"), opened(done).channel("r").field())


def test_ome_zarr_shows_the_colours(done: Path, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    assert main(["render", str(done), "--out", str(tmp_path / "a.ome.zarr")]) == 0
    shown = zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["ome"]["omero"]
    assert [channel["color"] for channel in shown["channels"]] == ["FF0000", "00FF00", "0000FF"]
    assert {(c["active"], c["window"]["start"], c["window"]["end"]) for c in shown["channels"]} == {(True, 0.0, 1.0)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "a.npy"], "npy holds one colour, this result has r, g, b: say which"),
        (["--out", "a.gif"], "gif holds one colour"),
        (["--channel", "x", "--out", "a.npy"], "unknown channel 'x'"),
    ],
)
def test_what_holds_one_colour_asks_which(
    done: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words[-1] = str(tmp_path / words[-1])
    assert main(["render", str(done), *words]) == 2
    assert says in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        ("r,g", "channel r: its wavelength is not known: give it in µm, such as r=0.532"),
        ("r=0.6,g=0.6", "channels r and g have the same wavelength, 0.6 µm: give each its own"),
        ("r=0.6,x=0.5", "channel x: unknown channel 'x': choose r, g or b"),
        ("r=0.6,g=0.5,R=0.4", "r is there twice; name each once"),
        ("r=0.6,g=green", "'green' is no wavelength in µm"),
        ("r=0.6,g=532", "channel g: wavelength_um 532.0 is not a wavelength in µm"),
        ("../r=0.6", "is not a name"),
        ("r:sim:thin@16x24=0.6,g:sim:thin@24x24=0.5", "channel g has images of 24×24 pixels, channel r of 16×24"),
    ],
)
def test_mistakes_are_told_before_anything_is_solved(
    frames: Path, tmp_path: Path, channels: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["run", "--channels", channels, "--solver", "ap", "--out", str(out), "--quiet"]
    if "sim:" not in channels:
        words += ["--data", str(frames), "--leds", str(frames.parent / "board.csv")]
        words += [word for key in ("na=0.1", "magnification=4", "camera_pixel_um=3.45") for word in ("--optics", key)]
    assert main(words) in (2, 3)
    assert says in (said := capsys.readouterr().err)
    assert len(said.splitlines()) == 1
    assert not out.exists()


def test_one_colour_and_several_are_not_asked_for_together(
    frames: Path, quick: RunSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--data", str(frames), "--channel", "r", "--channels", "r=0.6,g=0.5"]) == 2
    assert "--channel takes one colour of the images, --channels several" in capsys.readouterr().err
    assert main(["run", "--data", str(frames), "--channels", "r:a=0.6,g:b=0.5"]) == 2
    assert "each of the --channels names data of its own" in capsys.readouterr().err
    with pytest.raises(OptionError, match="give one of them"):
        replace(quick, data=replace(quick.data, channel="r"))


def test_optics_that_differ_are_no_colours_of_one_sample(tmp_path: Path) -> None:
    from fpmtools.formats import native

    places = []
    for name, na in (("a", 0.256), ("b", 0.24)):
        data = fpmtools.simulate("thin", image_shape=(16, 24), optics={"na": na})
        places.append(native.save(data, tmp_path / f"{name}.safetensors"))
    channels = [ChannelSpec(f.stem, str(f), wavelength_um=w) for f, w in zip(places, (0.63, 0.53), strict=True)]
    with pytest.raises(DataError, match=r"channel b has na 0\.24, channel a 0\.256: all must be of one microscope"):
        running.run(RunSpec(str(places[0]), "ap", channels=tuple(channels)), tmp_path / "run")


def test_a_spec_with_colours_is_the_same_in_json(quick: RunSpec) -> None:
    again = RunSpec.from_dict(json.loads(json.dumps(quick.to_dict())))
    assert again == quick
    assert again.digest == quick.digest
    assert quick.of_channel("b").data.channel == "b"
    assert quick.of_channel("b").data.optics["wavelength_um"] == 0.47
    pinned = quick.resolved({"channels": {"g": "0" * 64}})
    assert [one.digest for one in pinned.channels] == [None, "0" * 64, None]
