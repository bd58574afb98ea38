"""The promises a solver makes to the host, as tests that any author of a solver can run.

Subclass :class:`SolverConformance` in a test file of your own and run pytest; nothing else is needed::

    from fpmtools.testing import SolverConformance

    class TestMySolver(SolverConformance):
        solver = "my-solver"
        options = {"iterations": 20}

Those of readers and writers are in :mod:`fpmtools.testing.formats`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fpmtools import engine, registry
from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError
from fpmtools.forward import ForwardModel
from fpmtools.optics import Shape
from fpmtools.options import describe_options, make_options
from fpmtools.problem import Problem, prepare
from fpmtools.reconstruction import Reconstruction
from fpmtools.results import open_result
from fpmtools.simulation import simulate
from fpmtools.solver import Progress, Solver


@functools.cache
def small_dataset(image_shape: Shape = (24, 30)) -> Dataset:
    """A simulated tilted sample, −3 … 3 µm deep, under 5 × 5 LEDs of which the corners are dark field."""
    na = np.array([[x, y] for y in range(-2, 3) for x in range(-2, 3)]) * 0.1
    return simulate("tilted", image_shape=image_shape, leds=na, tilt_um=3.0)


@functools.cache
def paired_dataset() -> Dataset:
    """:func:`small_dataset`'s LEDs, two in each image; some shine in two images."""
    single = small_dataset()
    patterns = np.eye(len(single.na)) + np.roll(np.eye(len(single.na)), 7, axis=1)
    lit = np.tensordot(patterns[:18], single.intensities, axes=1)
    return Dataset.from_arrays(lit, single.na, single.optics, name="pairs", patterns=patterns[:18])


class SolverConformance:
    """What the host, the comparison and the user rely on in every solver, on simulated 24 × 30 images.

    Attributes
    ----------
    solver
        Name of an installed solver, or the class itself.
    options
        Options for a short run (a second or so) that still improves clearly on its start.
    """

    solver: ClassVar[str | type[Solver[Any]]]
    options: ClassVar[Mapping[str, Any]] = {}

    def make(self) -> Solver[Any]:
        """A new solver with the options under test."""
        cls = self.solver_class()
        return cls(make_options(cls, self.options))

    def solver_class(self) -> type[Solver[Any]]:
        """The class under test."""
        return registry.solver_class(self.solver) if isinstance(self.solver, str) else self.solver

    # ---------------------------------------------------------------- what the solver says about itself

    def test_options_are_frozen_and_documented(self) -> None:
        """``Options`` is a frozen dataclass whose every field has a description and a default that is in range."""
        cls = self.solver_class()
        assert dataclasses.is_dataclass(cls.Options)
        parameters: Any = getattr(cls.Options, "__dataclass_params__", None)
        assert parameters.frozen, "Options must be @dataclass(frozen=True)"
        rows = describe_options(cls)
        for row in rows:
            assert row.get("doc"), f"option {row['name']} has no description; define it with fpmtools.option(...)"
        assert make_options(cls, {row["name"]: row["default"] for row in rows}) == cls.Options()
        for preset in cls.presets:
            make_options(cls, {}, preset)

    def test_unknown_option_is_refused(self) -> None:
        """A misspelt option is an error, not ignored."""
        with pytest.raises(OptionError):
            make_options(self.solver_class(), {"no_such_option": 1})

    def test_record_matches_the_class(self) -> None:
        """The record's capabilities are those of the class."""
        if not isinstance(self.solver, str):
            pytest.skip("tested as a class, without a record")
        record = registry.find(self.solver).record
        assert record.capabilities & {"2d", "z-stack"}, "say whether it solves one plane or a stack"
        assert ("resume" in record.capabilities) == self.solver_class().resumable()
        assert record.capabilities & {"losses", "patterns", "masks"} == self.solver_class().handles

    # ---------------------------------------------------------------- start, step, result

    def test_result_before_any_step(self) -> None:
        """``result`` works on a state that was only started."""
        solver, problem = self.make(), small_problem()
        check_field(problem, solver.result(solver.start(problem)))

    def test_steps_count_up_to_the_total(self) -> None:
        """Steps come in order; ``done`` comes at the end, at the total, or before it where that is only a bound."""
        steps = self._all_steps()
        counts = [progress.step for progress in steps]
        assert counts == sorted(set(counts)), f"step numbers must rise, they are {counts[:20]} …"
        last, bound = steps[-1].step, any(progress.at_most for progress in steps)
        for progress in steps:
            fits = progress.total >= last if bound else progress.total == last
            assert fits, (
                f"after step {progress.step} the total is {progress.total}, and the run ended at {last}; say "
                "Progress(…, at_most=True) where a run may end before its total"
            )
        assert [progress.done for progress in steps] == [False] * (len(steps) - 1) + [True], "done, once, at the end"
        for progress in steps:
            assert math.isfinite(float(progress.loss)), f"the loss is {float(progress.loss)} after step {progress.step}"

    def test_an_error_is_the_mean_squared_amplitude_error(self) -> None:
        """``Progress.error``, where there is one, is what the result's images are wrong by, to a factor of two."""
        solver, problem = self.make(), small_problem()
        outcome, errors = engine.solve(problem, solver), [p.error for p in self._all_steps() if p.error is not None]
        if not errors:
            pytest.skip("reports no error")
        # Of some images only, or from before the step: the mean over the last tenth of the run is fair.
        last = float(np.mean([float(error) for error in errors[-max(1, len(errors) // 10) :]]))
        actual = mean_square(problem, outcome.reconstruction)
        assert actual / 2 < last < 2 * actual, (
            f"the last steps report {last:.3g} and the result has {actual:.3g}: give the mean of (|ψ| − A)², without "
            "weights, over the images of the step; Misfit.error is that"
        )

    def test_loss_decreases(self) -> None:
        """The loss at the end of the run is below that at its beginning."""
        losses = [float(progress.loss) for progress in self._all_steps()]
        part = max(1, len(losses) // 4)
        assert len(losses) > 1, "choose options with more than one step"
        first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
        assert last < first, (
            f"the mean loss of the last {part} steps is {last:.4g}, of the first {part} {first:.4g}; try a smaller "
            "step size, or options with more steps"
        )

    def test_result_explains_the_measurements_better_than_the_start(self) -> None:
        """The images that the result predicts are closer to the measured ones than those that the start predicts."""
        solver, problem = self.make(), small_problem()
        start = misfit(problem, solver.result(solver.start(problem)))
        end = misfit(problem, engine.solve(problem, solver).reconstruction)
        assert end < 0.9 * start, (
            f"Σ (a − A)² / ΣA² is {end:.4g} at the end and {start:.4g} at the start, and must fall below 0.9 of that; "
            "try more steps or another step size, and see that result() gives what step() has changed: the gradient is "
            "a mean over an unnormalised transform, so steps are of the order of the number of pixels squared"
        )

    def test_images_lit_by_several_leds(self) -> None:
        """Where the solver handles ``patterns``, it explains such images too; elsewhere they are refused."""
        solver = self.make()
        if "patterns" not in solver.handles:
            with pytest.raises(OptionError):
                prepare(paired_dataset(), solver, device="cpu")
            return
        problem = prepare(paired_dataset(), z_um=[-2.0, 0.0, 2.0], device="cpu")
        start = misfit(problem, solver.result(solver.start(problem)))
        end = misfit(problem, engine.solve(problem, solver).reconstruction)
        assert end < 0.9 * start, f"Σ (a − A)² / ΣA² is {end:.4g} at the end and {start:.4g} at the start"

    def test_stops_early_with_what_it_has(self) -> None:
        """A run whose budget is used up after one step gives a usable result."""
        problem = small_problem()
        outcome = engine.solve(problem, self.make(), budget_s=1e-9)
        assert outcome.status == "stopped"
        assert 0 < outcome.steps < outcome.total_steps
        check_field(problem, outcome.reconstruction)

    # ---------------------------------------------------------------- the result

    def test_spectra_are_those_of_the_result(self) -> None:
        """``spectra``, where the solver has it, are the result's planes as the forward model takes them."""
        solver, problem = self.make(), small_problem()
        if not hasattr(solver, "spectra"):
            pytest.skip("tells no spectra while it works")
        state, forward = solver.start(problem), problem.forward
        solver.step(state)
        z_um, spectra = solver.spectra(state)
        assert spectra.shape == (len(z_um), *forward.object_shape)
        shown = np.stack([solver.result(state).field(z, shape=forward.object_shape) for z in z_um])
        told, seen = (forward.amplitude(field, z_um) for field in (forward.field(spectra), torch.from_numpy(shown)))
        assert torch.allclose(told, seen, rtol=1e-3, atol=1e-3), "other images follow from spectra than from result"

    @pytest.mark.parametrize("z_um", [(1.5,), (-2.0, 2.0), (-3.0, 0.0, 1.0, 3.0)], ids=len)
    def test_any_number_of_planes(self, z_um: tuple[float, ...]) -> None:
        """The field is right in shape and type at every plane and between planes, and refused outside."""
        problem = small_problem(z_um)
        result = engine.solve(problem, self.make(), budget_s=1e-9).reconstruction
        check_field(problem, result)
        for outside in (z_um[0] - 1, z_um[-1] + 1):
            with pytest.raises(OptionError):
                result.field(outside)

    @pytest.mark.parametrize("image_shape", [(25, 32), (32, 25), (27, 23)], ids=str)
    def test_odd_sizes(self, image_shape: Shape) -> None:
        """Odd sizes work in either direction."""
        problem = small_problem(image_shape=image_shape)
        check_field(problem, engine.solve(problem, self.make(), budget_s=1e-9).reconstruction)

    def test_full_grids(self) -> None:
        """The camera's own grid and on-grid shifts, instead of the smallest grids the optics allow, work too."""
        problem = small_problem(critical_grid=False, subpixel=False)
        check_field(problem, engine.solve(problem, self.make(), budget_s=1e-9).reconstruction)

    def test_double_precision(self) -> None:
        """A problem in complex128 is solved; the field is complex64 all the same."""
        problem = small_problem(dtype="complex128")
        check_field(problem, engine.solve(problem, self.make(), budget_s=1e-9).reconstruction)

    def test_save_and_load(self, tmp_path: Path) -> None:
        """A saved result is loaded bit for bit, and takes the bytes it said it would."""
        problem = small_problem()
        result = engine.solve(problem, self.make(), budget_s=1e-9).reconstruction
        path = result.save(tmp_path / "result.safetensors")
        again = open_result(path)
        assert type(again) is type(result)
        assert again.grid == result.grid
        assert again.stored_bytes == result.stored_bytes
        assert 0 <= path.stat().st_size - result.stored_bytes < 16_384
        for z in inner_planes(problem):
            assert_same(again.field(z), result.field(z))

    # ---------------------------------------------------------------- reproducible, and a good neighbour

    def test_same_seed_same_bits(self) -> None:
        """Two runs with one seed give the same bits, whatever the global random state is."""
        fields = []
        for global_seed in (1, 2):
            torch.manual_seed(global_seed)
            fields.append(self._solve_fields(small_problem(seed=5)))
        assert_same(*fields)

    def test_resumed_run_gives_the_same_bits(self, tmp_path: Path) -> None:
        """Stopped after one step, resumed from the file, stopped and resumed again: as if it had never stopped."""
        if not self.solver_class().resumable():
            pytest.skip("has no dump and restore")
        whole = self._solve_fields(small_problem())
        for _ in range(2):
            problem = small_problem()
            outcome = engine.solve(problem, self.make(), budget_s=1e-9, checkpoint=tmp_path / "checkpoint", resume=True)
        assert outcome.status == "stopped", "choose options with more than two steps"
        problem = small_problem()
        outcome = engine.solve(problem, self.make(), checkpoint=tmp_path / "checkpoint", resume=True)
        assert outcome.status == "done"
        assert_same(whole, stack(problem, outcome.reconstruction))

    def test_masked_pixels_have_no_say(self) -> None:
        """What stands in pixels that are left out changes nothing, but for the image that it starts from."""
        if "masks" not in self.solver_class().handles:
            pytest.skip("cannot leave pixels out")
        images = small_dataset((24, 30)).intensities.copy()
        images[:, [5, 14], [7, 20]] = 0  # stuck in all of them
        problem = prepare(small_dataset((24, 30)).with_images(images), z_um=(-2.0, 2.0), device="cpu")
        seen = problem.forward.seen()
        assert seen is not None
        other = torch.where(seen.bool(), problem.amplitudes, -problem.amplitudes)
        other[problem.order[0]] = problem.amplitudes[problem.order[0]]
        assert_same(
            *(self._solve_fields(dataclasses.replace(problem, amplitudes=a)) for a in (problem.amplitudes, other))
        )

    def test_leaves_global_state_alone(self) -> None:
        """Random generators, default type, threads and gradient mode are as they were."""
        before = global_state()
        self._solve_fields(small_problem())
        assert global_state() == before

    def test_leaves_its_input_alone(self) -> None:
        """The amplitudes and the data set that it was given are unchanged."""
        problem = small_problem()
        amplitudes, digest = problem.amplitudes.clone(), problem.dataset.digest
        self._solve_fields(problem)
        assert torch.equal(problem.amplitudes, amplitudes)
        assert problem.dataset.digest == digest

    def test_stays_on_the_cpu(self) -> None:
        """With a problem on the CPU, nothing is put on a GPU, even where there is one."""
        used = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        solver, problem = self.make(), small_problem()
        state = solver.start(problem)
        solver.step(state)
        if solver.resumable():
            assert {tensor.device.type for tensor in solver.dump(state).values()} == {"cpu"}
        assert (torch.cuda.memory_allocated() if torch.cuda.is_available() else 0) == used

    def test_runs_on_a_gpu(self) -> None:
        """The same code runs on a GPU, where there is one, and explains the measurements as well."""
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        here, there = small_problem(), small_problem(device="cuda")
        on_cpu, on_gpu = (misfit(here, engine.solve(p, self.make()).reconstruction) for p in (here, there))
        assert on_gpu < 1.2 * on_cpu

    # ---------------------------------------------------------------- helpers

    def _all_steps(self) -> list[Progress]:
        solver, steps = self.make(), list[Progress]()
        state = solver.start(small_problem())
        while not (steps and steps[-1].done):
            steps.append(solver.step(state))
            assert steps[-1].done or steps[-1].step < steps[-1].total, "never says that it is done"
        return steps

    def _solve_fields(self, problem: Problem) -> NDArray[np.complex64]:
        return stack(problem, engine.solve(problem, self.make()).reconstruction)


def small_problem(
    z_um: tuple[float, ...] = (-2.0, 0.0, 2.0), *, image_shape: Shape = (24, 30), device: str = "cpu", **settings: Any
) -> Problem:
    """:func:`small_dataset`, prepared at three planes; ``settings`` as for :func:`fpmtools.problem.prepare`."""
    return prepare(small_dataset(image_shape), z_um=z_um, device=device, **settings)


def inner_planes(problem: Problem) -> list[float]:
    """All planes of a problem, and the middles between them."""
    planes = problem.z_um
    return sorted({*planes, *((a + b) / 2 for a, b in itertools.pairwise(planes))})


def stack(problem: Problem, result: Reconstruction) -> NDArray[np.complex64]:
    """The field at :func:`inner_planes`, [z, y, x]."""
    return np.stack([result.field(z) for z in inner_planes(problem)])


def check_field(problem: Problem, result: Reconstruction) -> None:
    """The grid is the problem's, and the field has its shape, is complex64, finite, and not zero everywhere."""
    assert result.grid.z_range == problem.z_range
    assert result.grid.shape == problem.output_shape
    assert np.allclose(result.grid.extent_um, problem.forward.extent_um)
    for field in stack(problem, result):
        assert field.shape == problem.output_shape
        assert field.dtype == np.complex64
        assert np.isfinite(field).all()
        assert np.abs(field).max() > 0
    assert result.field(problem.z_um[0], shape=(17, 20)).shape == (17, 20)


def model(problem: Problem, result: Reconstruction) -> ForwardModel:
    """The forward model of the instrument as the result knows it: a solver may have found out more than it was told."""
    own, known = problem.forward, result.calibration
    if known is None or known is problem.calibration:
        return own
    return ForwardModel(
        own.optics, known.selected(), own.plan, subpixel=own.subpixel, device=own.device, dtype=own.dtype
    )


def misfit(problem: Problem, result: Reconstruction) -> float:
    """Mean over the planes of Σ (predicted − measured)² / Σ measured², both amplitudes, over all LEDs."""
    forward, measured = model(problem, result), problem.amplitudes
    errors = []
    for z in problem.z_um:
        field = torch.from_numpy(result.field(z, shape=forward.object_shape)).to(forward.device)
        errors.append(float((forward.amplitude(field, z)[0] - measured).square().sum() / measured.square().sum()))
    return float(np.mean(errors))


def mean_square(problem: Problem, result: Reconstruction) -> float:
    """Mean over planes, images and pixels of (predicted − measured)², both amplitudes."""
    forward = model(problem, result)
    errors = []
    for z in problem.z_um:
        field = torch.from_numpy(result.field(z, shape=forward.object_shape)).to(forward.device)
        errors.append(float((forward.amplitude(field, z)[0] - problem.amplitudes).square().mean()))
    return float(np.mean(errors))


def assert_same(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> None:
    """Bit for bit the same."""
    differ = int((first.view(np.uint32) != second.view(np.uint32)).sum()) if first.shape == second.shape else -1
    assert differ == 0, f"{differ} of {first.size} values differ, by up to {np.abs(first - second).max():.3g}"


def global_state() -> list[Any]:
    """What a solver must leave as it was, in a form that can be compared."""
    numpy_state = np.random.get_state()  # noqa: NPY002 (the global state is what is watched)
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        [np.asarray(part).tolist() for part in numpy_state],
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        sys.getrecursionlimit(),
    ]
