"""``evaluate``: every metric by name, on any reconstruction, third parties' too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fpmtools import Dataset, Grid, Reconstruction, catalogue, metrics, reconstruct, registry, simulate
from fpmtools.errors import DataError, OptionError
from fpmtools.evaluation import Case, evaluate

SOLVES = {"held_out", "ring_resolution_um"}
CHI2 = {"chi2", "chi2_bright", "chi2_dark"}  # of one plane, and where there is noise


class Foreign(Reconstruction):
    """A third party's: the truth, the less focused the farther from its depth, in one array of eight bytes."""

    kind = "foreign"

    def __init__(self, grid: Grid, data: Dataset) -> None:
        super().__init__(grid)
        self.data = data

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        assert self.data.truth is not None
        return self.data.truth.field

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {"seed": np.zeros(1)}, {}

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Reconstruction:
        raise AssertionError("nothing here is loaded from a file")


@pytest.fixture(scope="module")
def tilted() -> Dataset:
    return simulate("tilted", image_shape=(24, 30), tilt_um=4.0, leds="grid")


@pytest.fixture(scope="module")
def foreign(tilted: Dataset) -> Foreign:
    extent = (24 * tilted.optics.pixel_um, 30 * tilted.optics.pixel_um)
    return Foreign(Grid((48, 60), extent, (-4.0, 4.0)), tilted)


def test_all_cheap_metrics_of_a_third_partys_result(tilted: Dataset, foreign: Foreign) -> None:
    found = evaluate(foreign, tilted)
    records = {supplied.record.name: supplied.record for supplied in registry.metrics()}
    assert set(found) == set(records) - SOLVES - CHI2
    assert list(found) == [name for name in records if name in found]
    assert all(isinstance(value, float) for value in found.values())
    scored = metrics.score(foreign, tilted)
    for name in ("psnr", "ssim", "ssim_gaussian", "rmse", "relative_l2", "complex_nrmse", "phase_rmse_rad"):
        assert found[name] == scored[name]
    assert found["complex_nrmse_detilted"] <= found["complex_nrmse"] * 1.01
    assert found["residual_dark"] == metrics.residual(foreign, tilted)["dark"]
    assert found["stored_bytes"] == 8
    planes = metrics.planes_needed_um(foreign, tilted)
    assert found["bytes_per_plane"] == 8 / len(planes)
    assert found["ratio_dense"] == 48 * 60 * len(planes)
    assert found["ratio_dense"] > found["ratio_compressed"] > 1
    three = evaluate(foreign, tilted, ["ratio_dense"], z_um=(-4.0, 0.0, 4.0))
    assert three == {"ratio_dense": 48 * 60 * 3}


def test_without_a_truth_or_dark_field_their_metrics_are_left_out(tilted: Dataset, foreign: Foreign) -> None:
    bright = replace(tilted.select(np.flatnonzero(tilted.bright_field)), truth=None)
    found = evaluate(foreign, bright)
    needing = {s.record.name for s in registry.metrics() if s.record.needs_truth}
    assert set(found) == {s.record.name for s in registry.metrics()} - needing - SOLVES - CHI2 - {"residual_dark"}
    assert evaluate(foreign, bright, ["residual_dark"]) == {}


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["pnsr"], OptionError, "did you mean 'psnr'"),
        (["psnr"], DataError, "no truth"),
        (["depth_rmse_um"], DataError, "no truth"),
        (["held_out"], OptionError, "give evaluate"),
    ],
)
def test_what_is_asked_for_by_name_and_cannot_be_had_is_said(
    tilted: Dataset, foreign: Foreign, names: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        evaluate(foreign, replace(tilted, truth=None), names)


def test_metrics_that_solve_again_take_a_name_or_a_function() -> None:
    data = simulate("thin", image_shape=(24, 30), photons=300.0, defocus_um=2.0)
    solve = partial(reconstruct, solver="adam", device="cpu")
    result = solve(data)
    by_function = evaluate(result, data, sorted(SOLVES), solver=solve)
    assert by_function == evaluate(result, data, sorted(SOLVES), solver="adam")
    assert 0.02 < by_function["held_out"] < 0.06
    assert 1.0 < by_function["ring_resolution_um"] < 1.3
    # Metrics that need none of it get none of it.
    assert set(evaluate(result, data, solver=solve)) >= SOLVES


def test_the_depth_map_is_judged_where_there_is_depth(tilted: Dataset, foreign: Foreign) -> None:
    assert evaluate(foreign, tilted, ["depth_rmse_um"])["depth_rmse_um"] < 8
    flat = simulate("thin", image_shape=(16, 21))
    assert "depth_rmse_um" not in evaluate(reconstruct(flat, "ap", options={"sweeps": 1}, device="cpu"), flat)


def test_every_metric_sample_and_variant_is_documented() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "samples-and-metrics.md").read_text(encoding="utf-8")
    metric_names = [s.record.name for s in registry.metrics() if s.distribution == "fpmtools"]
    samples = [name for name in catalogue.entries() if "twin" not in name]
    for name in (*metric_names, *samples, *catalogue.VARIANTS):
        assert f"`{name}`" in text, name


def test_a_case_computes_what_is_shared_once(
    tilted: Dataset, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = metrics.match
    monkeypatch.setattr(metrics, "match", lambda *given: calls.append(given) or original(*given))
    case = Case(foreign, tilted)
    for name in ("psnr", "in_band_db", "focus_mse", "complex_nrmse"):
        registry.metric_function(name)(case)
    assert len(calls) == 1
    assert case.in_focus("normal-variance") is case.in_focus("normal-variance")
