"""Every benchmark script runs in its quick form, writes its record, and renders its section."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
Script = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a script as it is imported when it runs; PyTorch's threads and the module table are put back."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    threads, known = torch.get_num_threads(), set(sys.modules)
    yield importlib.import_module
    torch.set_num_threads(threads)
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


def test_speed_and_large_measure_against_the_recorded_paper_run(script: Script, tmp_path: Path) -> None:
    record = script("speed", "--only", "inr,ap")
    assert (tmp_path / "paper-32x40.json").is_file()
    rows = {row["label"]: row for row in record["rows"]}
    assert set(rows) == {"inr", "ap"}
    paper = record["paper"]
    for row in rows.values():
        reached = row["to_paper_quality_s"]
        assert reached is None or reached["median"] <= row["seconds"]["max"]
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


def test_peers_scores_all_on_the_same_arrays(script: Script) -> None:
    record = script("peers", "--fpm-rs", "not-installed", "--ptylab", "not-installed")
    assert record["versions_of_opponents"] == {}
    assert record["duel"] is None
    quality = {(row["set"], row["solver"]): row["in_band_db"] for row in record["rows"]}
    assert quality["clean", "ap"] > quality["noisy", "ap"] > quality["tile", "ap"] > 10


def test_gpu_table(script: Script) -> None:
    record = script("gpu", "--device", "cpu")
    assert [row["solver"] for row in record["rows"]] == ["inr", "ap", "adam"]
    assert all(row["steps_per_second"] > 0 for row in record["rows"])


def test_a_child_process_measures_its_own_memory(load: Callable[[str], ModuleType], cache: Path) -> None:
    common = load("common")
    data = common.simulated(cache, (24, 28))
    assert common.simulated(cache, (24, 28)) == data
    found = common.child({"data": str(data), "solver": "ap", "steps": 2}, 1)
    assert 50 < found["peak_memory_mb"] < 2000
    assert found["full_seconds"] == pytest.approx(found["step_seconds"] * found["total_steps"])
    with pytest.raises(SystemExit, match="unknown solver"):
        common.child({"data": str(data), "solver": "nobody"}, 1)


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


def test_held_out_leds_rank_solvers_as_the_truth_does(script: Script) -> None:
    record = script("held_out", "--repeats", "1")
    (entry,) = record["data"].values()
    assert set(entry["solvers"]) == set(record["solvers"])
    assert entry["rho"] == record["rho"]["min"] > 0.7
    right, pairs = entry["pairs"]
    assert right >= 0.8 * pairs > 0
