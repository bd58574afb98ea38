"""Every benchmark script runs in its quick form, writes its record, and renders its section."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import fpmtools
from fpmtools import metrics, threads

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
Script = Callable[..., dict[str, Any]]
NOT_INSTALLED = ("--fpm-rs", "not-installed", "--ptylab", "not-installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a script as it is imported when it runs; the threads and the module table are put back."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for variable, value in {"OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(threads.LIBRARIES, "1")}.items():
        monkeypatch.setenv(variable, value)
    count, known = torch.get_num_threads(), set(sys.modules)
    yield importlib.import_module
    torch.set_num_threads(count)
    for name in {path.stem for path in BENCHMARKS.glob("*.py")} - known:
        sys.modules.pop(name, None)


@pytest.fixture
def script(
    load: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    cache: Path,
) -> Script:
    """Run a script's quick form; returns its record, after a look at what it printed."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        words = ["--quick", "--threads", "1", "--repeats", "2", "--results", str(tmp_path), "--cache", str(cache)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words, *arguments])
        load(name).main()
        record: dict[str, Any] = json.loads((tmp_path / f"{name}.json").read_text())
        assert "| ---: |" in capsys.readouterr().out
        assert record["about"]["threads"] == 1
        assert str(cache) not in record["about"]["command"], "a machine's own folders do not belong in a record"
        return record

    return run


@pytest.mark.slow
def test_speed_and_large_measure_against_the_recorded_paper_run(script: Script, tmp_path: Path) -> None:
    record = script("speed", "--only", "inr,ap")
    assert (tmp_path / "paper-32x40.json").is_file()
    rows = {row["label"]: row for row in record["rows"]}
    assert set(rows) == {"inr", "ap"}
    paper = record["paper"]
    for row in rows.values():
        reached = row["to_paper_quality_s"]
        assert reached is None or 0 < reached["min"] <= reached["median"] <= reached["max"]
        assert 0 < row["seconds"]["min"] <= row["seconds"]["max"]
        assert set(row["quality"]) == {"psnr", "ssim", "phase_rmse_rad", "in_band_db"}
        assert (reached is None) == (row["faster"] is None)
        assert row["stored_bytes"] > 0
    assert paper["seconds"]["min"] <= paper["seconds"]["median"] <= paper["seconds"]["max"]
    stack = record["stack_bytes"]
    assert stack["band_limited_16_bit"] < stack["amplitude"] < stack["complex"] == 2 * 4 * 64 * 80 * 161

    large = script("large", "--quality-from", "32,40")
    assert large["goal"]["shape"] == [32, 40]
    assert large["goal"]["psnr"] == pytest.approx(paper["psnr"])
    assert large["render_seconds"]["median"] < 5


def test_large_says_what_to_run_first(script: Script) -> None:
    with pytest.raises(SystemExit, match="--record-paper"):
        script("large", "--quality-from", "7,9")


@pytest.mark.slow
def test_scaling_fits_and_draws(script: Script, tmp_path: Path) -> None:
    record = script("scaling")
    assert len(record["points"]) == 3 * 6
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_an_exponent_is_a_slope(load: Callable[[str], ModuleType]) -> None:
    points = [{"axis": "leds", "solver": "ap", "at": n, "full_seconds": 0.3 * n**1.5} for n in (3, 10, 40)]
    assert load("scaling").exponent(points, "leds", "ap", "full_seconds") == pytest.approx(1.5)


def test_roofline_compares_with_bare_transforms(script: Script) -> None:
    record = script("roofline")
    for row in record["passes"]:
        assert row["seconds"]["min"] / row["fft_seconds"]["max"] <= row["ratio"]
        assert row["ratio"] <= row["seconds"]["max"] / row["fft_seconds"]["min"]
    for row in record["profiles"]:
        assert row["useful_seconds"] > 0
        assert any("fft" in name for name, _ in row["top"])


@pytest.mark.slow
def test_slides_are_measured_at_their_seams(script: Script) -> None:
    record = script("slides")
    assert len(record["quality"]) == 1
    for row in record["quality"]:
        assert row["mosaic_db"] > 10
        assert 0 < row["line"] < 100
    assert record["time"]["workers"]["identical"]
    assert [row["part"] for row in record["time"]["rows"]] == [False, False, True]
    assert 0 < record["scheduling"]["each_s"] < 0.1


@pytest.mark.slow
def test_peers_scores_all_on_the_same_arrays(script: Script) -> None:
    record = script("peers", *NOT_INSTALLED)
    assert record["versions_of_opponents"] == {}
    assert record["duel"] is None
    quality = {(row["set"], row["solver"]): row["in_band_db"] for row in record["rows"]}
    assert quality["clean", "ap"] > quality["noisy", "ap"] > quality["tile", "ap"] > 10


@pytest.mark.slow
def test_real_compares_the_instrument_as_given_and_as_found(script: Script, load: Callable[[str], ModuleType]) -> None:
    record = script("real", *NOT_INSTALLED)
    assert list(record["sets"]) == ["clean", "noisy"]
    for entry in record["sets"].values():
        assert entry["kept"] == []
        for row in entry["rows"].values():
            assert row["auto"]["field_db"] == row["none"]["field_db"] > 15
    real = load("real")
    data = fpmtools.simulate("thin", image_shape=(32, 36), leds="grid", photons=500, upsample=2)
    rng = np.random.default_rng(0)
    assert 0.02 < np.abs(real.board(data, rng).na - data.na).max() / data.optics.na < 0.2
    brighter = real.gains(data, rng).intensities.mean((1, 2)) / data.intensities.mean((1, 2))
    assert np.ptp(brighter) > 0.2
    unknown = replace(data, truth=None, calibration=replace(data.calibration, defocus_um=3.0))
    sets = dict(real.blind(iter([("mine", unknown)])))
    assert list(sets) == ["mine", "mine, blind"]
    found = real.on_measured("mine", sets["mine"], ["ap"])
    assert 0 < found["rows"]["ap"]["none"]["residual_bright"] < 0.5
    shown = real.section({**record, "measured": {"mine": found}})
    assert "| mine, `ap` |" in shown


def test_families_tell_what_a_default_costs(script: Script, load: Callable[[str], ModuleType]) -> None:
    first = script("families", "--jobs", "1", "--solvers", "ap")
    record = script("families", "--jobs", "1", "--solvers", "lbfgs")
    families = load("families")
    assert set(record["since"]) == {"ap", "lbfgs"}
    assert len(record["families"]) == len(families.QUICK)
    for name, entry in record["families"].items():
        assert list(entry) == ["ap", "lbfgs"]
        assert entry["ap"] == first["families"][name]["ap"], "what is not run again stays"
        assert all(families.regret(runs) >= 0 for runs in entry.values())
        assert entry["ap"]["default"]["score"] > 15
        assert 0 < entry["ap"]["default"]["ssim"] <= 1
    runs = {"default": {"score": 20.0}, "paper": {"score": 20.5}, "prior=0": {"score": 21.25}}
    assert families.regret(runs) == 1.25
    shown = families.section({"families": {"mine": {"ap": runs}}, "since": {"ap": "2026-01-31"}})
    assert "| mine | 20.00 (+ 1.25, prior=0) |" in shown
    assert "| below `paper` by, at most | 0.50 |" in shown


def test_mistakes_are_counted(script: Script) -> None:
    (entry,) = script("mistakes")["sets"].values()
    assert entry["alarms"] == []
    assert [row["mark"] for row in entry["mistakes"].values()] == ["✓", "✓"]


def test_gpu_table(script: Script) -> None:
    record = script("gpu", "--device", "cpu")
    assert [row["solver"] for row in record["rows"]] == ["inr", "ap", "adam"]
    assert [row["label"] for row in record["stack"]] == ["inr", "ap", "inr:preset=paper", "ap:preset=paper"]
    assert [(row["side"], row["label"]) for row in record["board"]] == [
        (s, n) for s in (16, 24) for n in ("ap", "epry")
    ]
    assert all(row["steps_per_second"] > 0 for name in ("rows", "stack", "board") for row in record[name])
    assert all(row["in_band_db"] > 20 for row in record["board"])


def test_a_row_of_the_gpu_table_is_not_begun_late(script: Script, load: Callable[[str], ModuleType]) -> None:
    load("gpu").UNTIL_S.update(stack=0.0, board=0.0)
    record = script("gpu", "--device", "cpu", "--only", "stack,rows")
    assert (record["stack"], record["board"], len(record["rows"])) == ([], [], 3)


@pytest.fixture
def arguments(cache: Path) -> argparse.Namespace:
    return argparse.Namespace(cache=cache, threads=1, quick=True)


def test_a_run_is_scored_as_in_a_comparison(
    load: Callable[[str], ModuleType], arguments: argparse.Namespace, tmp_path: Path
) -> None:
    common = load("common")
    data = common.simulated(arguments.cache, (24, 28))
    assert common.simulated(arguments.cache, (24, 28)) == data
    whole = common.spec(arguments, data, "ap", {"sweeps": 2})
    found = common.run(whole, tmp_path / "run", alone=False)
    scores = metrics.score(fpmtools.open_result(tmp_path / "run"), fpmtools.load(data))
    assert found["quality"] == pytest.approx({name: scores[name] for name in common.QUALITY})
    assert common.render_seconds(tmp_path / "run", 1) > 0

    reached = common.work(common.until(whole, {"psnr": found["quality"]["psnr"] - 3}), arguments)
    assert 0 < reached["seconds_to_target"] <= reached["seconds"]
    assert reached["trajectory"][-1]["psnr"] >= found["quality"]["psnr"] - 3
    short = common.work(common.briefly(whole, 1e-6), arguments)
    assert (short["status"], short["quality"]) == ("stopped", None)
    assert short["full_seconds"] == short["step_seconds"] * short["total_steps"]
    assert not list(arguments.cache.glob("run-*"))


@pytest.mark.slow
def test_a_run_of_its_own_measures_its_own_memory(
    load: Callable[[str], ModuleType], arguments: argparse.Namespace
) -> None:
    common = load("common")
    whole = common.spec(arguments, common.simulated(arguments.cache, (24, 28)), "ap", {"sweeps": 2})
    found = common.work(whole, arguments, alone=True)
    assert 50 < found["peak_memory_mb"] < 2000
    assert found["quality"] == pytest.approx(common.work(whole, arguments)["quality"])
    with pytest.raises(SystemExit, match="unknown solver"):
        common.work(dataclasses.replace(whole, solver="nobody"), arguments, alone=True)


def test_results_are_rendered(
    script: Script, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script("gpu", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["render.py", "--results", str(tmp_path), "--out", str(tmp_path / "RESULTS.md")])
    load("render").main()
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## On a GPU" in text
    assert "`python benchmarks/gpu.py --quick --threads 1" in text
    assert "tried and did not help" in text
    assert "## Time to quality" not in text


def test_numbers_are_readable(load: Callable[[str], ModuleType]) -> None:
    common = load("common")
    assert [common.show(value) for value in (None, 0.012345, 12.345, 12345, "a")] == [
        "–",
        "0.0123",
        "12.3",
        "12 345",
        "a",
    ]
    assert common.show(common.spread([3.0, 1.0, 2.0])) == "2 (1–3)"
    assert [common.size(n) for n in (12, 4.2e6)] == ["12 B", "4.2 MB"]


@pytest.mark.slow
def test_held_out_leds_rank_solvers_as_the_truth_does(script: Script) -> None:
    record = script("held_out", "--repeats", "1")
    (entry,) = record["data"].values()
    assert set(entry["solvers"]) == set(record["solvers"])
    assert entry["rho"] == record["rho"]["min"] > 0.7
    right, pairs = entry["pairs"]
    assert right >= 0.8 * pairs > 0


@pytest.fixture
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `fpmtools data fetch` would put its files; empty, whatever else is on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setenv("FPMTOOLS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.slow
def test_the_papers_comparisons_on_twins(
    script: Script,
    load: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    data_folder: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(load("paper"), "FOCUS_PLANES", 21)
    record = script("paper", "--brief", "--repeats", "1", "--sizes", "12,16", "--solved", "24")
    assert record["data"] == {"volume": "`sim:twin-blood-smear`", "flat": "`sim:twin-sheepblood`"}
    assert len({(row["label"], *row["shape"]) for row in record["times"]}) == 4 * 2
    assert len(record["focus"]) == 3
    for found in record["focus"].values():
        assert set(found) == set(record["runs"]["flat"]["solvers"]) == {row["label"] for row in record["times"]}
    for name in record["figures"]:
        assert (tmp_path / name).stat().st_size > 5000
    assert len(record["figures"]) == 4

    volume, flat = record["stored"]["volume"], record["stored"]["flat"]
    assert volume["dense"]["amplitude"] == 161 * flat["dense"]["amplitude"] == 161 * 4 * 48 * 48
    published = volume["files"]["inr:preset=paper"]
    assert 2 * volume["amplitude_network"] < published < 2 * volume["amplitude_network"] + 5000
    # 80 of the published table is n_z · 16 / Q, but for the small networks, which weigh little at 1024² and much here.
    plane = 4 * 12 * 12 * 32
    assert volume["dense"]["amplitude"] / plane == pytest.approx(161 * 16 / 32)
    assert plane < volume["amplitude_network"] < plane + 12000
    assert flat["files"]["inr:preset=paper"] > flat["dense"]["complex"] >= flat["files"]["inr"]


def published_layout(data: Any) -> dict[str, Any]:
    """The variables of a published file with these measurements."""
    optics = {"na_cal": data.optics.na, "mag": data.optics.magnification, "dpix_c": data.optics.camera_pixel_um}
    return {"I_low": np.moveaxis(data.intensities.astype(np.float64), 0, -1), "na_calib": -data.na, **optics}


@pytest.mark.slow
def test_the_papers_comparisons_on_published_files(
    script: Script,
    load: Callable[[str], ModuleType],
    write_v73: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    data_folder: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(load("paper"), "FOCUS_PLANES", 21)
    data = fpmtools.simulate(image_shape=(20, 24))
    file = write_v73("bloodsmeartilt_G.mat", published_layout(data))
    record = script(
        "paper", "--brief", "--repeats", "1", "--data", str(tmp_path), "--sizes", "12,22,40,48", "--solved", "22"
    )
    assert record["data"] == {"volume": "the measured `bloodsmeartilt_G.mat`", "flat": "`sim:twin-sheepblood`"}
    assert sorted({tuple(row["shape"]) for row in record["times"]}) == [(12, 12), (20, 22), (20, 24)]
    assert record["runs"]["volume"]["shape"] == [20, 22]
    assert record["runs"]["volume"]["solvers"]["inr"]["quality"] is None
    assert record["focus"] == {}
    assert str(tmp_path) not in record["about"]["command"]
    assert {"paper_focus.png", "paper_volume.png"} < set(record["figures"])

    source = load("paper_data").find_all(tmp_path)["volume"]
    patch = fpmtools.load(source.patch(22, tmp_path / "patches"))
    np.testing.assert_allclose(patch.intensities, data.intensities[:, :, 1:23], rtol=1e-6)
    np.testing.assert_array_equal(patch.na, data.na)
    assert patch.optics.wavelength_um == 0.522

    (data_folder / "fpm_inr").mkdir(parents=True)
    fetched = file.rename(data_folder / "fpm_inr" / "BloodSmearTilt_r.mat")
    source = load("paper_data").find_all(None)["volume"]
    assert (source.file, source.entry.name) == (fetched, "blood_smear_tilt_r")


def test_a_folder_without_published_files_is_a_mistake(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none of BloodSmearTilt_g\.mat, .* is there; leave out --data"):
        script("paper", "--data", str(tmp_path))


def test_an_interrupted_reproduction_keeps_what_it_has(
    script: Script, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(load("paper"), "solve_patch", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as caught:
        script("paper", "--brief", "--sizes", "16")
    assert caught.value.code == 130
    record = json.loads((tmp_path / "paper.json").read_text())
    assert record["interrupted"]
    assert len(record["times"]) == 4
    text = load("paper").section(record)
    assert "interrupted" in text
    row = next(line for line in text.splitlines() if line.startswith("| 16×16"))
    assert [cell.strip()[:1] for cell in row.split("|")[4:8]] == ["≈"] * 4, "nothing was solved to the end"


def test_ctrl_c_is_one_line(load: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("common").to_the_end(lambda: signal.raise_signal(signal.SIGINT))
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_run_to_the_end_replaces_what_was_extrapolated(load: Callable[[str], ModuleType]) -> None:
    paper = load("paper")
    runs = {label: {"seconds": 9.0} for label in paper.SOLVERS}
    record = {"runs": {"volume": {"shape": [32, 40], "solvers": runs}}}
    time = {"median": 7.0, "min": 6.0, "max": 8.0}
    for label, shape, expected in [
        ("inr", [32, 40], ({"median": 9.0, "min": 9.0, "max": 9.0}, True)),
        ("inr", [64, 40], (time, False)),
        ("ap", [32, 40], (time, False)),  # on fewer planes than the table is about
    ]:
        assert paper.seconds(record, {"label": label, "shape": shape, "seconds": time}) == expected


def test_all_in_focus_of_a_perfect_stack(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    paper = load("paper")
    data = fpmtools.simulate("tilted", image_shape=(48, 64), leds="rings")
    assert data.truth is not None
    z_um = np.linspace(*paper.Z_UM, paper.FOCUS_PLANES)
    truth = metrics.band_limit(data.truth.field, data.optics, data.na, data.optics.pixel_um / 2)
    planes = []
    for z in z_um:  # sharp where the sample is at this depth, blurred with the distance from it
        spread = np.abs(data.truth.depth_um[0] - z)
        blurred = [gaussian_filter(np.abs(truth), sigma) for sigma in (0, 1, 2, 4)]
        planes.append(np.select([spread <= limit for limit in (0.6, 2, 4)], blurred[:3], blurred[3]))
    stack = np.array(planes).astype(np.complex64)
    grid = fpmtools.Grid((96, 128), (48 * data.optics.pixel_um, 64 * data.optics.pixel_um), paper.Z_UM)
    record: dict[str, Any] = {"focus": {}, "figures": []}
    results = {label: fpmtools.PlaneStack(stack, tuple(z_um), grid) for label in paper.SOLVERS}
    paper.focus(argparse.Namespace(results=tmp_path), data, results, record)
    plain, clipped, light_field = (found["inr"] for found in record["focus"].values())
    assert plain["depth_um"] < 1.5 < record["depth_of_truth_um"] < 6.5
    assert plain["psnr"] > 35
    assert light_field["psnr"] > 22
    assert clipped["mse"] > plain["mse"], "clipping hides from the focus measure what is brighter"
