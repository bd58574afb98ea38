"""What each command does and prints when all is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import fpmtools
from fpmtools import evaluation, known, metrics
from fpmtools.cli import main
from fpmtools.cli._inputs import DURATIONS, SIZES, planes, quantity, several
from fpmtools.cli.evaluate import NUMBERS
from fpmtools.dataset import Dataset
from fpmtools.formats import native
from fpmtools.metrics import targets
from fpmtools.reconstruction import Grid, PlaneStack

Json = Callable[..., Any]


@pytest.fixture
def as_json(capsys: pytest.CaptureFixture[str]) -> Json:
    """Run a command with --json and parse its stdout, which must be that one document."""

    def call(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0.0,)),
        ("-3.5", (-3.5,)),
        ("-10:10:5", (-10, -5, 0, 5, 10)),
        ("-1:2:4", (-1, 0, 1, 2)),
        ("-5,0,3.5", (-5, 0, 3.5)),
    ],
)
def test_planes(text: str, expected: tuple[float, ...]) -> None:
    assert planes(text) == expected


def test_quantities(tmp_path: Path) -> None:
    duration, memory = quantity("--budget", DURATIONS, "60s"), quantity("--memory", SIZES, "4GB")
    assert [duration(text) for text in ("60", "60s", "1.5m", "2 min", "1H")] == [60, 60, 90, 120, 3600]
    assert [memory(text) for text in ("4GB", "500 mb", "1GiB")] == [4e9, 5e8, 2**30]
    (tmp_path / "a,b").touch()
    assert several("sim:thin,b.mat") == ["sim:thin", "b.mat"]
    assert several(str(tmp_path / "a,b")) == [str(tmp_path / "a,b")]


def test_default_planes() -> None:
    """−10:10:21 for the built-in sample; the known defocus where there is one; 0 where nothing is known."""
    tilted = fpmtools.simulate("tilted", image_shape=(8, 9))
    assert tilted.planes_um == planes("-10:10:21")
    assert fpmtools.simulate("thin", image_shape=(8, 9), defocus_um=-4.5).planes_um == (-4.5,)
    assert replace(tilted, truth=None).planes_um == (0.0,)


@pytest.mark.parametrize("z", [["--z", "-2:2:3"], ["--z=-2:2:3"], ["--z", "-2,0,2"]])
def test_run_takes_negative_z(z: list[str], data_file: Path, tmp_path: Path, as_json: Json) -> None:
    run = as_json("run", "--data", data_file, "--solver", "ap", "-o", "sweeps=1", *z, "--out", tmp_path / "out")
    assert run["z_um"] == [-2, 0, 2]


def test_run_record(data_file: Path, dataset: Dataset, tmp_path: Path, as_json: Json) -> None:
    arguments = ["--solver", "ap", "--preset", "paper", "-o", "sweeps=3", "--roi", "1,2,16,19", "--seed", "5"]
    arguments += ["--optics", "wavelength_um=0.5", "--threads", "1", "--dtype", "complex128", "--out", tmp_path / "out"]
    run = as_json("run", "--data", data_file, *arguments)
    on_disk = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {key: value for key, value in run.items() if key != "folder"} == on_disk
    assert (run["status"], run["solver"], run["preset"], run["seed"]) == ("done", "ap", "paper", 5)
    assert (run["options"]["sweeps"], run["options"]["step"]) == (3, 0.5)
    assert run["data"]["image_shape"] == [16, 19]
    assert run["data"]["optics"]["wavelength_um"] == 0.5
    assert run["grid"]["dtype"] == "complex128"
    assert run["hardware"]["threads"] == 1
    assert 50 < run["peak_memory_mb"] < 5000
    assert run["command"][:3] == ["fpmtools", "run", "--data"]
    assert set(run["files"]) == {path.name for path in (tmp_path / "out").iterdir()}


def test_run_metrics_are_those_of_the_saved_result(finished: Path, dataset: Dataset) -> None:
    found = json.loads((finished / "run.json").read_text())["metrics"]
    result = fpmtools.open_result(finished)
    assert found["psnr"] == pytest.approx(metrics.score(result, dataset)["psnr"], rel=1e-6)
    residual = metrics.residual(result, dataset)
    for name, lights in (("residual", "all"), ("residual_bright", "bright"), ("residual_dark", "dark")):
        assert found[name] == pytest.approx(residual[lights], rel=1e-6)


def test_run_sampling_switches(data_file: Path, tmp_path: Path, as_json: Json) -> None:
    """Each switch changes what it says, so neither is dropped on the way."""
    common = ["run", "--data", data_file, "--solver", "ap", "-o", "sweeps=1", "--z", "0"]
    plain = as_json(*common, "--out", tmp_path / "plain")["grid"]
    other = as_json(
        *common,
        "--no-critical-grid",
        "--pixel-rounding",
        "--upsample",
        "3",
        "--margin",
        "auto",
        "--out",
        tmp_path / "other",
    )["grid"]
    assert (plain["subpixel"], other["subpixel"]) == (True, False)
    assert other["output_shape"] == [51, 66]
    assert np.prod(other["solved_shape"]) > np.prod(plain["solved_shape"])


def test_run_shows_its_progress(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No terminal, no bar."""
    arguments = ["--solver", "ap", "-o", "sweeps=2", "--out", str(tmp_path / "out")]
    assert main(["run", "--data", str(data_file), *arguments]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert all(line.startswith("ap  ") and "\r" not in line and "█" not in line for line in lines)
    words = lines[-1].split()
    psnr = float(words[words.index("PSNR") + 1])
    assert "image PSNR" in lines[-1]
    assert 0 < psnr < 100
    assert float(words[words.index("loss") + 1]) > 0
    assert "against the truth: PSNR" in out
    assert "loss " not in out


def test_quiet_run_is_silent_on_stderr(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--solver", "ap", "-o", "sweeps=1", "--quiet", "--out", str(tmp_path / "out")]
    assert main(["run", "--data", str(data_file), *arguments]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")] == []


def test_run_without_out_makes_a_new_folder_each_time(
    data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: Json
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [
        as_json("run", "--data", data_file, "--solver", "ap", "-o", "sweeps=1", "--z", "0")["folder"] for _ in range(2)
    ]
    assert folders == ["out/small-ap", "out/small-ap-2"]


def test_budget_stops_a_run(data_file: Path, tmp_path: Path, as_json: Json) -> None:
    arguments = ["--solver", "ap", "-o", "sweeps=100000", "-o", "join_below=0", "--budget", "0.2s"]
    run = as_json("run", "--data", data_file, *arguments, "--out", tmp_path / "out")
    assert run["status"] == "stopped"
    assert run["steps"] < run["total_steps"]
    assert 0.2 <= run["times"]["solve_s"] < 5
    last = run["quality_over_time"][-1]
    assert (last["psnr"], last["ssim"]) == pytest.approx((run["metrics"]["psnr"], run["metrics"]["ssim"]))


def test_target_ends_a_run(data_file: Path, tmp_path: Path, as_json: Json, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends when all targets are reached; one that is out of reach is said to be missed."""
    endless = ["run", "--data", data_file, "--solver", "ap", "-o", "sweeps=100000", "-o", "join_below=0", "--z", "0"]
    out = ["--out", tmp_path / "out", "--force"]
    run = as_json(*endless, *out, "--target", "psnr=5", "--target", "ssim=0.1", "--no-tracking")
    assert run["status"] == "reached"
    assert run["target"] == {"psnr": 5, "ssim": 0.1}
    assert 0 < run["seconds_to_target"] <= run["times"]["solve_s"]
    arguments = [*map(str, [*endless, *out]), "--target", "psnr=5,ssim=1", "--budget", "0.2s"]
    assert main(arguments) == 0
    assert "not reached: psnr 5, ssim 1\n" in capsys.readouterr().out
    missed = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (missed["status"], missed["seconds_to_target"]) == ("stopped", None)
    untracked = as_json(*endless, *out, "--no-tracking", "--budget", "0.2s")
    assert "quality_over_time" not in untracked


def test_progress_as_json_lines(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--data", str(data_file), "--solver", "ap", "-o", "sweeps=2", "--progress", "json"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    events = [json.loads(line) for line in err.splitlines() if not line.startswith("warning: ")]
    first = events.index(next(event for event in events if event["event"] == "measuring"))
    # A slow machine shows, and looks at, what has been reached on the way.
    assert {event["event"] for event in events[:first]} == {"progress", "looking", "quality"}
    assert {event["event"] for event in events[first:]} == {"measuring"}
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["step"] == last["total"]
    assert last["remaining_s"] == 0
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 5
    said, error = capsys.readouterr().err.splitlines()
    assert json.loads(said)["event"] == "error"
    assert error == f"error: {json.loads(said)['message']}"


def test_render_every_format(finished: Path, tmp_path: Path, as_json: Json) -> None:
    expected = fpmtools.open_result(finished).field(0.7)
    about = as_json("render", finished, "--z", "0.7", "--out", tmp_path / "field.npy")
    field = np.load(tmp_path / "field.npy")
    assert field.dtype == np.complex64
    assert about["shape"] == list(field.shape)
    np.testing.assert_array_equal(field, expected)

    as_json("render", finished / "reconstruction.safetensors", "--z", "0.7", "--out", tmp_path / "field.tiff")
    with tifffile.TiffFile(tmp_path / "field.tiff") as file:
        assert (file.is_imagej, file.series[0].axes, file.series[0].shape) == (True, "CYX", (2, *expected.shape))
        about = file.imagej_metadata
        assert (about["channels"], about["Labels"], about["unit"]) == (2, ["amplitude", "phase"], "um")
        assert "slices" not in about
        across, down = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        extent_um = fpmtools.open_result(finished).grid.extent_um
        assert across[0] / across[1] == pytest.approx(expected.shape[1] / extent_um[1], rel=1e-4)  # pixels per µm
        assert down[0] / down[1] == pytest.approx(expected.shape[0] / extent_um[0], rel=1e-4)
        amplitude, phase = file.asarray()
    np.testing.assert_allclose(amplitude, np.abs(expected), rtol=1e-6)
    shift = np.angle(np.exp(1j * (phase - np.angle(expected))))
    np.testing.assert_allclose(shift, shift[0, 0], atol=1e-4)

    as_json("render", finished, "--z", "0.7", "--out", tmp_path / "field.png")
    with Image.open(tmp_path / "field.png") as image:
        assert min(image.size) > 100

    as_json("render", finished, "--z", "-1.5", "--shape", "25,31", "--out", tmp_path / "field.npy", "--force")
    assert np.load(tmp_path / "field.npy").shape == (25, 31)


def test_evaluate_an_image(finished: Path, tmp_path: Path, as_json: Json) -> None:
    """Against its own amplitude, times a factor, a result is perfect once the gain is fitted, and not before."""
    field = fpmtools.open_result(finished).field(1.0)
    for name, observed in {"amplitude.npy": 3 * np.abs(field), "field.npy": 3 * field}.items():
        np.save(tmp_path / name, observed)
        figure = tmp_path / f"{name}.png"
        found = as_json("evaluate", finished, "--truth", tmp_path / name, "--z", "1", "--out", figure)
        assert found["gain"] == pytest.approx(3, rel=1e-5)
        assert found["ssim"] == pytest.approx(1, abs=1e-6)
        assert figure.stat().st_size > 1000
    tifffile.imwrite(tmp_path / "truth.tiff", 3 * np.abs(field))
    arguments = ["--z", "1", "--no-gain", "--out", tmp_path / "figure.png", "--force"]
    for customary, of in (([], "truth"), (["--customary"], "predicted")):
        found = as_json("evaluate", finished, "--truth", tmp_path / "truth.tiff", *arguments, *customary)
        expected = metrics.quality(3 * np.abs(field), np.abs(field), data_range=of)
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)
        assert (found["data_range_of"], found["relative_l2"]) == (of, pytest.approx(4 / 9, rel=1e-5))


def test_evaluate_the_bars_of_a_target(
    finished: Path, dataset: Dataset, tmp_path: Path, as_json: Json, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = fpmtools.open_result(finished).grid
    y, x = (length / 2 for length in grid.extent_um)
    (tmp_path / "bars.csv").write_text(f"x_um,y_um,group,element,angle_deg\n{x},{y},9,1,90\n{x},{y},9,2,0\n")
    arguments = ["evaluate", finished, "--bars", tmp_path / "bars.csv", "--z", "1", "--out", tmp_path / "bars.png"]
    found = as_json(*arguments)
    field = fpmtools.open_result(finished).field(1.0)
    for row, bars in zip(found["bars"], targets.from_file(tmp_path / "bars.csv"), strict=True):
        own = targets.field_contrast(field, grid.pixel_um, bars)
        assert (row["label"], row["per_mm"]) == (bars.label, bars.per_mm)
        assert (row["contrast"], row["moved_um"]) == (pytest.approx(own.contrast), pytest.approx(own.moved_um))
    assert found["cutoffs"]["objective NA/λ"] == pytest.approx(1000 * dataset.optics.na / dataset.optics.wavelength_um)
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert main([*map(str, arguments), "--phase", "--force"]) == 0
    assert "9.2" in capsys.readouterr().out
    assert main(list(map(str, [*arguments, "--truth", tmp_path / "x.npy"]))) == 2


def test_evaluate_the_bars_that_are_found(
    finished: Path, tmp_path: Path, as_json: Json, capsys: pytest.CaptureFixture[str]
) -> None:
    shape, pixel = (120, 130), 0.5
    y, x = (np.arange(n)[:, None] * pixel for n in shape)
    field = np.ones(shape, np.complex64)
    places = {(12.0, 14.0): 3.0, (40.0, 15.0): 2.5, (14.0, 42.0): 2.0, (42.0, 44.0): 1.5}  # (x, y): width of a bar
    for (across, down), width in places.items():
        for k in (-2, 0, 2):
            bar = (np.abs(x.T - across - k * width) < width / 2) & (np.abs(y - down) < 2.5 * width)
            field[bar] = 0.3
    grid = Grid(shape, (shape[0] * pixel, shape[1] * pixel), (0.0, 0.0))
    PlaneStack(field[None], (0.0,), grid).save(tmp_path / "reconstruction.safetensors")
    found = as_json("evaluate", tmp_path, "--bars", "auto")
    assert [row["per_mm"] for row in found["bars"]] == pytest.approx([500 / w for w in (3, 2.5, 2, 1.5)], rel=0.04)
    for row, (across, down) in zip(found["bars"], places, strict=True):
        assert (row["x_um"], row["y_um"]) == pytest.approx((across + pixel / 2, down + pixel / 2), abs=0.3)
        assert row["contrast"] > 0.5
    assert (tmp_path / "bars.png").is_file()
    assert main(["evaluate", str(finished), "--bars", "auto", "--z", "1", "--out", str(tmp_path / "none.png")]) == 3
    assert "no three-bar elements are found" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()


def test_run_says_41_05_db_and_evaluate_26_98_db_of_one_result_and_truth(
    finished: Path, data_file: Path, dataset: Dataset, tmp_path: Path, as_json: Json
) -> None:
    """They say the same, and so does Python; the customary definition is asked for, and is another number."""
    recorded = json.loads((finished / "run.json").read_text())["metrics"]
    found = as_json("evaluate", finished, "--truth", data_file, "--out", tmp_path / "e.png")
    computed = evaluation.evaluate(fpmtools.open_result(finished), dataset, list(NUMBERS))
    for name in NUMBERS:
        assert found[name] == pytest.approx(recorded[name], rel=1e-6)
        assert found[name] == pytest.approx(computed[name], rel=1e-6)
    assert found["data_range_of"] == "truth"
    assert dataset.truth is not None
    field = metrics.composite(fpmtools.open_result(finished), dataset.truth.depth_um)
    gain = abs(metrics.align(dataset.truth.field, field))
    expected = metrics.quality(np.abs(dataset.truth.field), gain * np.abs(field), data_range="predicted")
    arguments = ["--customary", "--out", tmp_path / "customary.png"]
    customary = as_json("evaluate", finished, "--truth", data_file, *arguments)
    assert customary["psnr"] == pytest.approx(expected["psnr"], rel=1e-6)
    assert abs(customary["psnr"] - found["psnr"]) > 0.5


def test_evaluate_refuses_the_truth_file_that_compare_writes(
    finished: Path, data_file: Path, dataset: Dataset, tmp_path: Path, as_json: Json
) -> None:
    """It takes it, and says the same numbers as with the data set."""
    assert known.save(dataset, tmp_path / "truth" / "small.safetensors")
    with_data = as_json("evaluate", finished, "--truth", data_file, "--out", tmp_path / "a.png")
    with_truth = as_json(
        "evaluate", finished, "--truth", tmp_path / "truth" / "small.safetensors", "--out", tmp_path / "b.png"
    )
    assert {name: with_truth[name] for name in NUMBERS} == pytest.approx({name: with_data[name] for name in NUMBERS})


def test_evaluate_compares_what_covers_the_same_field(
    data_file: Path, tmp_path: Path, as_json: Json, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--solver", "ap", "-o", "sweeps=2", "--z", "0", "--roi", "1,2,14,18", "--out", tmp_path / "part"]
    recorded = as_json("run", "--data", data_file, *arguments)["metrics"]
    evaluated = ["evaluate", tmp_path / "part", "--truth", data_file, "--out", tmp_path / "e.png"]
    assert main(list(map(str, evaluated))) == 3
    assert "say which with --roi" in capsys.readouterr().err
    found = as_json(*evaluated, "--roi", "1,2,14,18")
    assert found["psnr"] == pytest.approx(recorded["psnr"], rel=1e-6)


def test_evaluate_needs_one_real_image(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, bad in enumerate([np.ones((2, 8, 9)), np.full((8, 9), np.nan), np.array([["a", "b"]])]):
        path = tmp_path / f"{number}.npy"
        np.save(path, bad)
        assert (
            main(["evaluate", str(finished), "--truth", str(path), "--z", "0", "--out", str(tmp_path / "e.png")]) == 3
        )
        assert str(path) in capsys.readouterr().err
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    arguments = ["--truth", str(tmp_path / "pickle.npy"), "--z", "0", "--out", str(tmp_path / "e.png")]
    assert main(["evaluate", str(finished), *arguments]) == 3


def test_simulate_is_reproducible(tmp_path: Path, as_json: Json) -> None:
    arguments = ["--shape", "15,18", "--photons", "200", "--leds", "grid", "--tilt", "3", "--optics", "na=0.2"]
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        about = as_json("simulate", *arguments, "--seed", seed, "--out", tmp_path / f"{name}.safetensors")
        assert about["na"] == 0.2
    a, b, c = (native.read(tmp_path / f"{name}.safetensors") for name in "abc")
    assert a.image_shape == (15, 18)
    assert a.digest == b.digest != c.digest
    assert a.truth is not None
    assert (a.planes_um[0], a.planes_um[-1]) == (-3, 3)


def test_solvers(as_json: Json, capsys: pytest.CaptureFixture[str]) -> None:
    listed = as_json("solvers")
    assert {"ap", "adam", "inr"} <= {solver["name"] for solver in listed["solvers"]}
    described = as_json("solvers", "ap")
    sweeps = next(option for option in described["options"] if option["name"] == "sweeps")
    assert (sweeps["type"], sweeps["minimum"]) == ("int", 1)
    assert sweeps["doc"]
    assert main(["solvers", "ap"]) == 0
    assert "sweeps" in capsys.readouterr().out
    assert main(["solvers"]) == 0
    assert "alternating projections" in capsys.readouterr().out.lower()


def test_data(data_file: Path, as_json: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPMTOOLS_DATA", str(tmp_path))
    listed = {row["name"]: row["here"] for row in as_json("data", "list")["data"]}
    assert listed["sim:tilted"]
    assert "uconn_red" in listed
    about = as_json("data", "info", data_file)
    assert about["truth"]
    assert about["images"] == "9 of 17 × 22, 8 bright field"
    assert as_json("data", "info", "thu_phase_target")["citation"]


@pytest.mark.data
def test_fetch_without_a_network(measured_data: Callable[[str], Path], tmp_path: Path, as_json: Json) -> None:
    source = measured_data("uconn_blood_smear").parent
    first = as_json("data", "fetch", "uconn_red", "--from", source, "--to", tmp_path)
    again = as_json("data", "fetch", "uconn_red", "--from", source, "--to", tmp_path)
    assert (first["brought"], again["brought"]) == (["bloodsmear_red.mat"], [])
    target = tmp_path / "uconn_blood_smear" / "bloodsmear_red.mat"
    target.write_bytes(target.read_bytes()[:-1] + b"\0")
    assert as_json("data", "fetch", "uconn_red", "--from", source, "--to", tmp_path)["brought"] == [
        "bloodsmear_red.mat"
    ]


def test_doctor(as_json: Json, capsys: pytest.CaptureFixture[str]) -> None:
    about = as_json("doctor")
    assert about["problems"] == []
    assert {"ap", "adam", "inr"} <= set(about["solvers"])
    assert "cpu" in about["devices"]
    assert main(["doctor"]) == 0
    assert "All is well." in capsys.readouterr().out


def test_resuming_a_finished_run_says_so(finished: Path, data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and the summary, and nothing is solved or written; with other options it is an error."""
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    arguments = ["run", "--data", str(data_file), "--solver", "ap", "--z", "-2:2:3", "--out", str(finished), "--resume"]
    assert main(["run", "--resume", str(finished)]) == 0
    assert capsys.readouterr().out.endswith("finished already; nothing is left to do\n")
    assert main([*arguments, "-o", "sweeps=4", "--budget", "60s"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ap on ")
    assert out.endswith("finished already; nothing is left to do\n")
    assert main([*arguments, "-o", "sweeps=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        **json.loads((finished / "run.json").read_text()), "folder": str(finished)
    }  # fmt: skip
    assert main([*arguments, "-o", "sweeps=5"]) == 2
    assert "--option: the run in" in (said := capsys.readouterr().err)
    assert "was started with sweeps=4, not sweeps=5" in said
    assert main(["run", "--resume", str(finished), "--seed", "1"]) == 2
    assert "--seed: the run in" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_a_run_is_repeated_from_its_record(finished: Path, tmp_path: Path, as_json: Json) -> None:
    """Bit for bit, in a new folder; no other word is needed, nor allowed."""
    again = as_json("run", "--from", finished / "run.json", "--out", tmp_path / "again")
    result = "reconstruction.safetensors"
    assert (tmp_path / "again" / result).read_bytes() == (finished / result).read_bytes()
    first = json.loads((finished / "run.json").read_text())
    assert (again["resolved"], again["metrics"]) == (first["resolved"], first["metrics"])
    assert main(["run", "--from", str(finished / "run.json"), "--seed", "1"]) == 2


def test_a_replay_needs_the_same_data(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    data.write_bytes(data_file.read_bytes())
    assert main(["run", "--data", str(data), "--solver", "ap", "-o", "sweeps=1", "--z", "0", "--out", str(out)]) == 0
    dataset = native.read(data)
    native.save(dataset.with_images(dataset.intensities * 2), data)
    assert main(["run", "--from", str(out / "run.json"), "--out", str(tmp_path / "again")]) == 3
    assert "they have changed" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_trusting_the_leds_is_the_nominal_calibration(data_file: Path, tmp_path: Path, as_json: Json) -> None:
    common = ["run", "--data", data_file, "--solver", "ap", "-o", "sweeps=1", "--z", "0"]
    words = {"trusted": ["--trust-leds"], "nominal": ["--calibration", "nominal"], "auto": []}
    found = {name: as_json(*common, *more, "--out", tmp_path / name) for name, more in words.items()}
    assert [run["spec"]["calibration"] for run in found.values()] == ["nominal", "nominal", "auto"]
