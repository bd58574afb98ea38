"""The built-in solvers keep every promise that outside solvers are held to; and the tests of the promises can fail."""

from __future__ import annotations

import importlib
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from fpmtools import FpmError, Grid, PlaneStack, Problem, Progress, Solver, option
from fpmtools.testing import SolverConformance

ROOT = Path(__file__).resolve().parents[2]


def template_solver() -> type[Solver[Any]]:
    """The class in ``plugins/template``, which is not installed here."""
    sys.path.insert(0, str(ROOT / "plugins" / "template" / "src"))
    try:
        return importlib.import_module("fpmtools_wirtinger.solver").Wirtinger  # type: ignore[no-any-return]
    finally:
        sys.path.pop(0)


class TestAp(SolverConformance):
    solver = "ap"
    options: ClassVar[dict[str, Any]] = {"sweeps": 5}


class TestApByDefault(SolverConformance):
    solver = "ap"


class TestAdam(SolverConformance):
    solver = "adam"
    options: ClassVar[dict[str, Any]] = {"sweeps": 8}


class TestInr(SolverConformance):
    solver = "inr"
    options: ClassVar[dict[str, Any]] = {"steps": 40, "features": 16}


class TestLowRank(SolverConformance):
    solver = "lowrank"
    options: ClassVar[dict[str, Any]] = {"steps": 40, "terms": 16}


class TestEpry(SolverConformance):
    solver = "epry"
    options: ClassVar[dict[str, Any]] = {"sweeps": 16}


class TestEpryAsPublished(SolverConformance):
    solver = "epry"
    options: ClassVar[dict[str, Any]] = {"sweeps": 6, "modes": 0}


class TestMpie(SolverConformance):
    solver = "mpie"
    options: ClassVar[dict[str, Any]] = {"sweeps": 6}


class TestFd(SolverConformance):
    solver = "fd"
    options: ClassVar[dict[str, Any]] = {"sweeps": 12}


class TestAdmm(SolverConformance):
    solver = "admm"
    options: ClassVar[dict[str, Any]] = {"sweeps": 20, "denoiser": "tv"}


class TestLbfgs(SolverConformance):
    solver = "lbfgs"
    options: ClassVar[dict[str, Any]] = {"sweeps": 20, "tv": 1e-5}


class TestTemplate(SolverConformance):
    solver = template_solver()
    options: ClassVar[dict[str, Any]] = {"iterations": 10}


# ---------------------------------------------------------------- each broken promise is caught

Wirtinger: Any = TestTemplate.solver


@dataclass
class Thawed:
    iterations: int = option(10, "Passes over all LEDs")


@dataclass(frozen=True)
class Undocumented:
    iterations: int = 10
    step: float = 1.0
    damping: float = 0.1


class ThawedOptions(Wirtinger):
    Options = Thawed


class UndocumentedOptions(Wirtinger):
    Options = Undocumented


class BadPreset(Wirtinger):
    presets: ClassVar[dict[str, Any]] = {"fast": {"iterations": 0}}


class NeedsAStep(Wirtinger):
    def in_work(self, state: Any) -> Any:
        return super().in_work(state) / (state.done > 0)


class NeverDone(Wirtinger):
    def step(self, state: Any) -> Progress:
        return replace(super().step(state), done=False)


class MovingTotal(Wirtinger):
    def step(self, state: Any) -> Progress:
        progress = super().step(state)
        return replace(progress, total=progress.total + (progress.step == 1))


class Climbs(Wirtinger):
    def start(self, problem: Problem) -> Any:
        state = super().start(problem)
        state.scale *= -0.3
        return state


class Idle(Wirtinger):
    def start(self, problem: Problem) -> Any:
        state = super().start(problem)
        state.scale *= 0
        return state


class DropsAPlane(Wirtinger):
    def result(self, state: Any) -> Any:
        result = super().result(state)
        grid = result.grid
        result.grid = Grid(grid.shape, grid.extent_um, (grid.z_range[0], grid.z_range[0]))
        return result


class IdleWithPatterns(Wirtinger):
    def begin(self, state: Any) -> None:
        super().begin(state)
        if state.problem.calibration.patterns is not None:
            state.scale *= 0


class TellsOtherSpectra(Wirtinger):
    def spectra(self, state: Any) -> Any:
        z_um, spectra = super().spectra(state)
        return z_um, spectra.flip(1)


class Transposes(Wirtinger):
    def result(self, state: Any) -> Any:
        result = super().result(state)
        result.grid = Grid(result.grid.shape[::-1], result.grid.extent_um, result.grid.z_range)
        return result


class UnseededStart(Wirtinger):
    def start(self, problem: Problem) -> Any:
        state = super().start(problem)
        state.spectra += torch.randn_like(state.spectra)
        return state


class SeedsTheWorld(Wirtinger):
    def start(self, problem: Problem) -> Any:
        torch.manual_seed(problem.seed)
        return super().start(problem)


class RollsPythonsDice(Wirtinger):
    def start(self, problem: Problem) -> Any:
        random.random()
        return super().start(problem)


class DisablesGradients(Wirtinger):
    def start(self, problem: Problem) -> Any:
        torch.set_grad_enabled(False)
        return super().start(problem)


class EatsItsInput(Wirtinger):
    def step(self, state: Any) -> Progress:
        progress = super().step(state)
        state.problem.amplitudes.mul_(0.999)
        return progress


class ForgetsTheStep(Wirtinger):
    def restore(self, problem: Problem, tensors: Any) -> Any:
        return super().restore(problem, {**tensors, "done": tensors["done"] * 0})


class RoundsItsCheckpoint(Wirtinger):
    def dump(self, state: Any) -> dict[str, torch.Tensor]:
        tensors = super().dump(state)
        return {**tensors, "spectra": tensors["spectra"].to(torch.complex32).to(torch.complex64)}


class Unannounced(PlaneStack):
    kind = "unannounced"


class Unnameable(Wirtinger):
    def result(self, state: Any) -> Any:
        planes = super().result(state)
        return Unannounced(planes.planes, planes.z_um, planes.grid)


class SinglePrecisionOnly(Wirtinger):
    def start(self, problem: Problem) -> Any:
        state = super().start(problem)
        assert state.spectra.dtype == torch.complex64
        return state


class OnePlaneOnly(Wirtinger):
    def start(self, problem: Problem) -> Any:
        state = super().start(problem)
        state.spectra = state.spectra[:1]
        return state


class EvenSizesOnly(Wirtinger):
    def start(self, problem: Problem) -> Any:
        assert all(n % 2 == 0 for n in problem.dataset.image_shape)
        return super().start(problem)


CAUGHT_BY: dict[Any, tuple[Any, ...]] = {
    ThawedOptions: ("test_options_are_frozen_and_documented",),
    UndocumentedOptions: ("test_options_are_frozen_and_documented",),
    BadPreset: ("test_options_are_frozen_and_documented",),
    NeedsAStep: ("test_result_before_any_step",),
    NeverDone: ("test_steps_count_up_to_the_total",),
    MovingTotal: ("test_steps_count_up_to_the_total",),
    Climbs: ("test_loss_decreases",),
    Idle: ("test_result_explains_the_measurements_better_than_the_start",),
    IdleWithPatterns: ("test_images_lit_by_several_leds",),
    TellsOtherSpectra: ("test_spectra_are_those_of_the_result",),
    DropsAPlane: ("test_stops_early_with_what_it_has",),
    Transposes: ("test_stops_early_with_what_it_has",),
    UnseededStart: ("test_same_seed_same_bits",),
    SeedsTheWorld: ("test_leaves_global_state_alone",),
    RollsPythonsDice: ("test_leaves_global_state_alone",),
    DisablesGradients: ("test_leaves_global_state_alone",),
    EatsItsInput: ("test_leaves_its_input_alone",),
    ForgetsTheStep: ("test_resumed_run_gives_the_same_bits", "tmp_path"),
    RoundsItsCheckpoint: ("test_resumed_run_gives_the_same_bits", "tmp_path"),
    Unnameable: ("test_save_and_load", "tmp_path"),
    SinglePrecisionOnly: ("test_double_precision",),
    OnePlaneOnly: ("test_any_number_of_planes", (-2.0, 2.0)),
    EvenSizesOnly: ("test_odd_sizes", (25, 32)),
}


@pytest.mark.parametrize("solver", CAUGHT_BY, ids=lambda solver: solver.__name__)
def test_a_broken_promise_is_caught(solver: type[Solver[Any]], tmp_path: Path) -> None:
    """The test that is meant for it fails; ``TestTemplate`` shows that the same test passes on the honest solver."""
    case = type("Case", (SolverConformance,), {"solver": solver, "options": {"iterations": 10}})()
    name, *arguments = CAUGHT_BY[solver]
    with pytest.raises((AssertionError, FpmError)), torch.set_grad_enabled(True):
        getattr(case, name)(*(tmp_path if argument == "tmp_path" else argument for argument in arguments))
