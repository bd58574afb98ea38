"""On a graphics card: the same numbers as on the processor, memory that runs out, and runs that go on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools.calibration import Calibration
from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.evaluation import evaluate
from fpmtools.formats import native
from fpmtools.forward.gradients import WRT, gradients
from fpmtools.leds import direction_sines, raster
from fpmtools.problem import prepare
from fpmtools.pupil import Pupil
from fpmtools.simulation import simulate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

SOLVERS = ("ap", "epry", "mpie", "fd", "admm", "lbfgs", "adam", "inr", "lowrank")
SHORT = {"adam": {"sweeps": 30}, "inr": {"steps": 200, "features": 8}, "lowrank": {"steps": 200, "terms": 8}}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """49 LEDs, 48 × 60 pixels, with noise."""
    na = direction_sines(raster(7, 7, 6.0), 74.0)
    return simulate("thin", image_shape=(48, 60), leds=na, photons=1000.0, seed=3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("complex64", 2e-4), ("complex128", 1e-10)])
def test_loss_and_every_gradient_are_those_of_the_processor(dataset: Dataset, dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(5)
    pupil = Pupil(
        rng.normal(size=15) * 0.2, softness=0.15, apodization=rng.normal(size=6) * 0.1, stop=(0.1, -0.1, 0.9, 0.2)
    )
    images = len(dataset.na)
    gain, background = rng.uniform(0.5, 2, images), rng.uniform(0, 0.1, images)
    instrument = replace(Calibration.nominal(dataset.na, pupil=pupil), gain=gain, background=background)
    exact = prepare(dataset, calibration=instrument, z_um=(-5.0, 5.0), device="cpu", dtype="complex128")
    here = prepare(dataset, calibration=instrument, z_um=(-5.0, 5.0), device="cuda", dtype=dtype)
    wrt = [name for name in WRT if name != "pupil_map"]
    spectra = torch.from_numpy(rng.normal(size=(2, *exact.forward.object_shape, 2))) * 10
    spectra = torch.view_as_complex(spectra.contiguous())
    results = [
        gradients(
            problem.forward, spectra.to(problem.forward.device, problem.forward.dtype), problem.amplitudes,
            problem.z_um, wrt=wrt,
        )
        for problem in (exact, here)
    ]  # fmt: skip
    (loss, slopes), (found, others) = results
    assert float(found) == pytest.approx(float(loss), rel=tolerance)
    for name in wrt:
        a, b = slopes[name], others[name].cpu().to(slopes[name].dtype)
        assert float((a - b).norm() / a.norm()) < tolerance, name


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_finds_what_it_finds_on_the_processor(dataset: Dataset, solver: str) -> None:
    options = SHORT.get(solver, {})
    quality = [
        evaluate(fpmtools.reconstruct(dataset, solver, z_um=0.0, device=device, options=options), dataset)["psnr"]
        for device in ("cpu", "cuda")
    ]
    assert quality[1] == pytest.approx(quality[0], abs=1.0 if solver == "inr" else 0.2)


def test_a_card_that_is_too_small_for_a_batch_takes_smaller_ones() -> None:
    """Its memory is really short: what is allowed of it holds the problem and some of the fields at once."""
    na = direction_sines(raster(7, 7, 6.0), 74.0)
    problem = prepare(simulate("thin", image_shape=(128, 128), leds=na), z_um=tuple(range(-10, 11)), device="cuda")
    forward = problem.forward
    spectra = problem.first_guess()[None].repeat(len(problem.z_um), 1, 1)
    at_once = forward.loss_and_gradient(spectra, problem.amplitudes, problem.z_um)
    whole = forward.batch_samples
    fields = 8 * math.prod(forward.image_shape) * len(problem.z_um) * len(na)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 1.5 * fields) / total)
        bit_by_bit = forward.loss_and_gradient(spectra, problem.amplitudes, problem.z_um)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert forward.batch_samples < whole
    assert float(bit_by_bit.loss) == pytest.approx(float(at_once.loss), rel=1e-5)
    difference = (bit_by_bit.gradient - at_once.gradient).norm()
    assert float(difference) < 1e-4 * float(at_once.gradient.norm())


@pytest.mark.parametrize("solver", ["ap", "inr"])
def test_a_run_that_was_stopped_goes_on(dataset: Dataset, solver: str, tmp_path: Path) -> None:
    data = native.save(dataset, tmp_path / "small.safetensors")
    more = [word for key, value in SHORT.get(solver, {}).items() for word in ("-o", f"{key}={value}")]
    words = ["run", "--data", str(data), "--solver", solver, *more, "--z", "0", "--device", "cuda", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    assert main([*words, "--budget", "0.01s", "--out", str(tmp_path / "run")]) == 0
    assert main(["run", "--resume", str(tmp_path / "run"), "--budget", "1h", "--quiet"]) == 0
    documents = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "run")]
    assert {document["status"] for document in documents} == {"done"}
    whole, run = (document["metrics"]["psnr"] for document in documents)
    assert run == pytest.approx(whole, abs=0.5 if solver == "inr" else 0.1)
    assert documents[0]["hardware"]["device"].startswith("cuda")


def test_a_comparison_shares_the_card(dataset: Dataset, tmp_path: Path) -> None:
    data = native.save(dataset, tmp_path / "small.safetensors")
    words = ["compare", "--data", str(data), "--solvers", "ap,adam:sweeps=30", "--z", "0", "--device", "cuda"]
    assert main([*words, "--quiet", "--out", str(tmp_path / "both")]) == 0
    rows = json.loads((tmp_path / "both" / "results.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["done", "done"]
