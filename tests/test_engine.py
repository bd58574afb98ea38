"""The loop that runs any solver, and the sampling plan it prepares."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.fft
import torch

from fpmtools import engine, storage
from fpmtools.errors import DataError, OptionError, SolverError, Terminated
from fpmtools.metrics import score
from fpmtools.options import describe_options, make_options, option
from fpmtools.problem import prepare
from fpmtools.reconstruction import PlaneStack
from fpmtools.sampling import SamplingPlan, intensity_scale
from fpmtools.simulation import simulate
from fpmtools.solver import Progress, Solver


@dataclass(frozen=True)
class Options:
    steps: int = option(50, "number of steps", minimum=1, maximum=1000)
    pause_s: float = option(0.0, "length of a step", unit="s", minimum=0)
    fail_at: int | None = option(None, "step that goes wrong")
    how: str = option("nan", "how it goes wrong", choices=("nan", "memory", "error", "interrupt", "exit", "text"))
    loud: bool = option(False, "nothing")


class Counter(Solver[dict[str, int]]):
    """Counts its steps; the amplitude of its flat result is that number."""

    Options = Options
    presets = {"short": {"steps": 3}}  # noqa: RUF012

    def start(self, problem):
        self.problem = problem
        return {"count": 0}

    def step(self, state):
        time.sleep(self.options.pause_s)
        state["count"] += 1
        loss = 1 / state["count"]
        if state["count"] == self.options.fail_at:
            if self.options.how == "memory":
                raise MemoryError
            if self.options.how == "error":
                raise ZeroDivisionError("a\nb")
            if self.options.how == "interrupt":
                raise KeyboardInterrupt
            if self.options.how == "exit":
                raise SystemExit(130)
            if self.options.how == "nan":
                loss = float("nan")
        done = state["count"] >= self.options.steps or loss != loss
        return Progress(state["count"], self.options.steps, torch.tensor(loss), done)

    def result(self, state):
        if self.options.how == "text":
            return "not a reconstruction"
        problem = self.problem
        height, width = problem.forward.object_shape
        spectra = np.zeros((len(problem.z_um), height, width), np.complex64)
        spectra[:, height // 2, width // 2] = state["count"] * height * width
        return PlaneStack.from_spectra(spectra, problem.z_um, problem.output_shape, problem.forward.extent_um)

    def dump(self, state):
        return {"count": torch.tensor(state["count"])}

    def restore(self, problem, tensors):
        self.problem = problem
        return {"count": int(tensors["count"])}


@pytest.fixture(scope="module")
def data():
    return simulate("thin", image_shape=(32, 40))


def counter(**options):
    return Counter(make_options(Counter, options))


def reached(outcome):
    return round(float(np.abs(outcome.reconstruction.field(0.0)).mean()))


def test_a_run_to_the_end(data):
    calls = []
    solver = counter(steps=7)
    problem = prepare(data, solver)
    outcome = engine.solve(problem, solver, on_progress=calls.append)
    assert (outcome.status, outcome.steps, outcome.total_steps, reached(outcome)) == ("done", 7, 7, 7)
    last = calls[-1]
    assert (last["step"], last["total"], last["at_most"], last["remaining_s"]) == (7, 7, False, 0)
    assert (last["what"], last["loss"], last["psnr"]) == ("loss", pytest.approx(1 / 7), None)
    assert outcome.history[-1][0] == 7
    assert outcome.reconstruction.metadata["intensity_scale"] == pytest.approx(intensity_scale(data, data.calibration))


def test_a_budget_stops_it(data):
    solver = counter(steps=1000, pause_s=0.01)
    outcome = engine.solve(prepare(data), solver, budget_s=0.1)
    assert outcome.status == "stopped"
    assert 1 <= outcome.steps <= 11
    assert reached(outcome) == outcome.steps


def test_ctrl_c_keeps_what_there_is(data):
    pressed = []

    def press(*_):
        if not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    solver = counter(steps=1000, pause_s=0.02)
    outcome = engine.solve(prepare(data), solver, on_progress=press)
    assert outcome.status == "interrupted"
    assert reached(outcome) == outcome.steps < 1000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_it(data):
    solver = counter(steps=1000, pause_s=0.02)
    with pytest.raises(KeyboardInterrupt):
        engine.solve(prepare(data), solver, on_progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_snapshots_do_not_cost_time_and_can_end_the_run(data):
    seen = []

    def look(seconds, reconstruction):
        seen.append((seconds, float(np.abs(reconstruction.field(0.0)).mean())))
        time.sleep(0.2)
        return len(seen) == 3

    outcome = engine.solve(prepare(data), counter(steps=1000, pause_s=0.01), on_snapshot=look)
    assert outcome.status == "reached"
    assert len(seen) == 3
    assert outcome.seconds < 0.5
    assert [s for s, _ in seen] == sorted(s for s, _ in seen)


def test_a_stopped_run_is_resumed_from_its_checkpoint(data, tmp_path):
    path, problem = tmp_path / "checkpoint.safetensors", prepare(data)
    kept = {"points": [1.5]}
    first = engine.solve(problem, counter(steps=300, pause_s=0.01), budget_s=0.05, checkpoint=path, keep=kept)
    assert path.is_file()
    kept = {}
    second = engine.solve(
        problem, counter(steps=300, pause_s=0.01), budget_s=0.1, checkpoint=path, resume=True, keep=kept
    )
    assert second.steps > first.steps
    assert second.seconds >= 0.1 > first.seconds - 0.02
    assert second.history[: len(first.history)] == first.history, "history lost on resume"
    assert kept == {"points": [1.5]}


def damaged(path):
    path.write_bytes(path.read_bytes()[:-1])


def of_another_run(path):
    tensors, header = storage.read_tensors(path, "checkpoint")
    storage.write_tensors(path, tensors, "checkpoint", {**header, "run": {**header["run"], "seed": 99}})


def of_other_threads(path):
    tensors, header = storage.read_tensors(path, "checkpoint")
    storage.write_tensors(path, tensors, "checkpoint", {**header, "run": {**header["run"], "threads": 99}})


def without_tensors(path):
    _, header = storage.read_tensors(path, "checkpoint")
    storage.write_tensors(path, {}, "checkpoint", header)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(damaged, ""), (of_another_run, "seed"), (of_other_threads, "threads"), (without_tensors, "KeyError")],
)
def test_a_checkpoint_that_does_not_fit_is_said_and_the_run_starts_afresh(data, tmp_path, spoil, says):
    path, problem = tmp_path / "checkpoint.safetensors", prepare(data)
    engine.solve(problem, counter(steps=20, pause_s=0.01), budget_s=0.05, checkpoint=path)
    spoil(path)
    said = []
    outcome = engine.solve(
        problem, counter(steps=20, pause_s=0.01), checkpoint=path, resume=True, on_warning=said.append
    )
    assert (outcome.status, outcome.history[0][0] <= 20, reached(outcome)) == ("done", True, 20)
    assert outcome.seconds >= 20 * 0.01
    (line,) = said
    assert "starts afresh" in line
    assert says in line


def test_checkpoints_do_not_run_on_the_clock(data, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(Counter, "dump", lambda self, state: time.sleep(0.1) or {"count": torch.tensor(1)})
    outcome = engine.solve(prepare(data), counter(steps=6), checkpoint=tmp_path / "checkpoint.safetensors")
    assert outcome.seconds < 0.3


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_EVERY_S", 0.0)
    (tmp_path / "file").touch()
    said = []
    outcome = engine.solve(
        prepare(data), counter(steps=3), checkpoint=tmp_path / "file" / "checkpoint", on_warning=said.append
    )
    assert (outcome.status, len(said)) == ("done", 2)
    assert "no checkpoint: cannot write" in said[0]


def test_what_a_callback_raises_is_raised_as_it_is(data):
    def broken(*_):
        raise ZeroDivisionError("mine")

    for callback in ({"on_progress": broken}, {"on_snapshot": broken}):
        with pytest.raises(ZeroDivisionError, match="mine"):
            engine.solve(prepare(data), counter(steps=3), **callback)


def test_progress_says_what_is_known(data, monkeypatch):
    """PSNR is of the mean error of all steps since the last report; with an upper bound there is no remaining time."""
    monkeypatch.setattr(engine, "REPORT_EVERY_S", 1e9)
    errors = [0.1, 0.4, 0.1, 0.2]

    def step(self, state):
        state["count"] += 1
        return Progress(
            state["count"], 100, 0.5, state["count"] == 4, True, torch.tensor(errors[state["count"] - 1]), "what"
        )

    monkeypatch.setattr(Counter, "step", step)
    calls = []
    engine.solve(prepare(data), counter(), on_progress=calls.append)
    (call,) = calls
    assert call["psnr"] == pytest.approx(-10 * np.log10(0.2), abs=1e-4)
    assert (call["at_most"], call["what"], call["remaining_s"]) == (True, "what", 0.0)
    monkeypatch.setattr(engine, "REPORT_EVERY_S", 0.0)
    engine.solve(prepare(data), counter(), on_progress=calls.append)
    assert [call["remaining_s"] for call in calls[1:]] == [None, None, None, 0.0]


def test_sigterm_and_sighup_end_a_run_with_its_checkpoint(data, tmp_path):
    """After the step under way; the resumed run is as if nothing had happened."""
    problem = prepare(data)
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")):
        path, before = tmp_path / f"{name}.safetensors", signal.getsignal(number)
        calls = []

        def send(call, number=number, calls=calls):
            if not calls:
                os.kill(os.getpid(), number)
            calls.append(call)

        solver = counter(steps=100, pause_s=0.02)
        with pytest.raises(Terminated, match=f"ended by {name} after step") as ended:
            engine.solve(problem, solver, on_progress=send, checkpoint=path)
        assert ended.value.exit_code == 128 + number
        assert signal.getsignal(number) is before
        assert len(calls) == 2
        outcome = engine.solve(problem, counter(steps=100, pause_s=0.02), checkpoint=path, resume=True)
        assert (outcome.status, outcome.steps, reached(outcome)) == ("done", 100, 100)


def test_sigterm_keeps_the_result_of_a_solver_that_cannot_be_resumed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Counter, "resumable", classmethod(lambda cls: False))
    sent = []

    def send(_):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    outcome = engine.solve(
        prepare(data), counter(steps=100, pause_s=0.02), on_progress=send, checkpoint=tmp_path / "none"
    )
    assert (outcome.status, outcome.signal) == ("interrupted", signal.SIGTERM)
    assert reached(outcome) == outcome.steps < 100
    assert not list(tmp_path.iterdir())


def test_reconstruct_has_the_threads_of_the_command_and_gives_them_back(data, monkeypatch):
    """One for a small problem, what is asked for, or what the environment says; as before afterwards."""
    seen = []

    def step(self, state):
        seen.append((torch.get_num_threads(), scipy.fft.get_workers()))
        return Progress(1, 1, 0.5, True)

    monkeypatch.setattr(Counter, "step", step)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        engine.reconstruct(data, counter())
        engine.reconstruct(data, counter(), threads=2)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        engine.reconstruct(data, counter())
        assert seen == [(1, 1), (2, 2), (3, 3)]
        assert (torch.get_num_threads(), scipy.fft.get_workers()) == (3, 1)
        with pytest.raises(OptionError, match="threads must be from 1 to"):
            engine.reconstruct(data, counter(), threads=100_000)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("nan", "diverged"),
        ("memory", "out of memory"),
        ("error", "ZeroDivisionError: a b"),
        ("interrupt", "Counter failed: KeyboardInterrupt"),
        ("exit", "Counter failed: SystemExit: 130"),
        ("text", "Counter failed: its result is a str, not a Reconstruction"),
    ],
)
def test_what_goes_wrong_in_a_solver_is_one_line(data, how, word):
    with pytest.raises(SolverError, match=word) as error:
        engine.solve(prepare(data), counter(fail_at=4, how=how))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"z_um": [1.0, 1.0]}, "ascending"),
        ({"z_um": [float("nan")]}, "finite"),
        ({"z_um": []}, "one or more"),
        ({"device": "tpu"}, "unknown device"),
        ({"dtype": "float16"}, "unknown dtype"),
        ({"upsample": 0}, "upsample"),
        ({"upsample": 1, "critical_grid": False}, None),
    ],
)
def test_preparing_refuses_what_makes_no_sense(data, arguments, word):
    if word is None:
        prepare(data, **arguments)
        return
    with pytest.raises(OptionError, match=word):
        prepare(data, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_said(data):
    with pytest.raises(OptionError, match="no CUDA device"):
        prepare(data, device="cuda")


def test_an_led_off_the_grid_is_refused(data):
    far = data.with_calibration(na=data.na * 3)
    with pytest.raises(DataError, match=r"LED \d+ at NA .* outside the reconstruction grid"):
        prepare(far, upsample=1, critical_grid=False)


def test_options_come_from_text_and_are_checked():
    options = make_options(Counter, {"steps": "12", "pause_s": "0.5", "fail_at": "none", "loud": "yes"})
    assert options == Options(12, 0.5, None, "nan", True)
    assert make_options(Counter, {"pause_s": 0.25}, "short") == Options(3, 0.25)
    assert make_options(Counter, {"preset": "short", "steps": 4}).steps == 4
    rows = {row["name"]: row for row in describe_options(Counter)}
    assert rows["fail_at"]["type"] == "int | none"
    assert (rows["pause_s"]["unit"], rows["steps"]["maximum"]) == ("s", 1000)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"step": 3}, "unknown option 'step': did you mean 'steps'"),
        ({"steps": "many"}, "'many' is not int"),
        ({"steps": 2.5}, "not int"),
        ({"steps": True}, "not int"),
        ({"steps": 0}, "from 1 to 1000"),
        ({"pause_s": "inf"}, "not float"),
        ({"how": "nun"}, "did you mean 'nan'"),
        ({"loud": "maybe"}, "not bool"),
        ({"preset": "shirt"}, "unknown preset 'shirt': did you mean 'short'"),
    ],
)
def test_a_wrong_option_is_named(values, word):
    with pytest.raises(OptionError, match=word):
        make_options(Counter, values)


def test_seeds_and_steps_have_random_numbers_of_their_own(data):
    drawn = set()
    for seed in (0, 1, 2, 2**31, 2**33):
        problem = prepare(data, seed=seed)
        for step in (0, 1, 2, 70_000):
            drawn.add(tuple(torch.rand(4, generator=problem.generator(step)).tolist()))
            again = torch.rand(4, generator=problem.generator(step)).tolist()
            assert tuple(again) in drawn
    assert len(drawn) == 20


def test_the_plan_is_small_and_loses_nothing():
    data = simulate("thin", image_shape=(47, 64), photons=None)
    plan = SamplingPlan.choose(data)
    assert all(n < 64 and n % 2 == 0 for n in plan.object_shape)
    scores = [
        score(engine.reconstruct(data, "ap", upsample=2, critical_grid=critical), data)["in_band_db"]
        for critical in (True, False)
    ]
    assert min(scores) > 80, scores


def test_the_plan_resamples_intensities_inside_their_band():
    data = simulate("thin", image_shape=(95, 132), upsample=1, optics={"camera_pixel_um": 1.7})
    plan = SamplingPlan.choose(data)
    assert all(small < full for small, full in zip(plan.image_shape, data.image_shape, strict=True))
    scale = intensity_scale(data, data.calibration)
    small = plan.amplitudes(data, torch.float64).numpy()
    # Parseval: the mean intensity is what it was.
    assert np.allclose((small**2).mean((1, 2)), data.intensities.mean((1, 2)) / scale, rtol=1e-5)
    bright = data.bright_field
    assert (small[bright] ** 2).mean() == pytest.approx(1.0, rel=1e-6)
