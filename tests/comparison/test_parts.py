"""The comparison's parts on their own: specs, plan, processes, rows, noise floor, targets."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fpmtools import columns
from fpmtools import processes as process
from fpmtools.comparison import Spec, rows, trials
from fpmtools.comparison.spec import in_each_way
from fpmtools.errors import OptionError
from fpmtools.records import MetricRecord
from fpmtools.registry import built_in_metrics
from fpmtools.runs.memory import PeakMemory
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec, ways


def test_spec() -> None:
    spec = Spec.parse("inr:preset=paper:epochs=5")
    assert (spec.solver, spec.options) == ("inr", (("preset", "paper"), ("epochs", "5")))
    assert Spec.parse("ap").options == ()
    assert Spec.parse("ap:x=a/b").folder == "ap_x=a_b"
    for bad in ("", "ap:sweeps", ":x=1", "ap:=1", "sweeps=3"):
        with pytest.raises(OptionError):
            Spec.parse(bad)


def test_plan_interleaves_and_gives_each_run_its_folder() -> None:
    sources = [trials.Source(name, name, Path(name), (0.0,)) for name in ("a", "b c")]
    specs = [Spec.parse(text) for text in ("ap", "ap-2", "adam:rate=1")]
    outputs = {source: Outputs(measures=(source.name,)) for source in sources}
    cases = trials.interleaved(specs, sources, (0, 7), 2, outputs, threads=2)
    assert len({case.folder for case in cases}) == len(cases) == 24
    assert [case.contender.label for case in cases[:6]] == ["ap", "ap-2", "adam:rate=1"] * 2
    assert [case.repeat for case in cases] == [0] * 12 + [1] * 12
    assert cases[-1].folder == "adam_rate=1+b_c+seed7+run2"
    assert cases[-1].title == "adam:rate=1 · b c · seed 7"
    assert cases[-1].spec == RunSpec(
        DataSpec("b c", digest="b c"),
        "adam",
        {"rate": "1"},
        z_um=(0.0,),
        seed=7,
        threads=2,
        outputs=outputs[sources[1]],
    )
    assert trials.interleaved(specs, sources[:1], (7,), 1, outputs)[0].title == "ap"


def test_solvers_are_compared_with_the_instrument_as_given_and_as_found() -> None:
    assert ways("auto") == ["auto"]
    assert ways("pupil,gain") == ["pupil,gain"]
    assert ways("auto,none") == ["auto", "none"]
    both = in_each_way([Spec.parse("ap"), Spec.parse("adam:rate=1")], ways("none,auto"))
    labels = ["ap, as given", "ap, calibrated", "adam:rate=1, as given", "adam:rate=1, calibrated"]
    assert [one.label for one in both] == labels
    sources = [trials.Source("a", how, Path(how), (0.0,), calibrate=how) for how in ("none", "auto")]
    cases = trials.interleaved(both, sources, (0,), 1, {source: Outputs() for source in sources})
    assert [case.title for case in cases] == labels
    assert [case.spec.data.digest for case in cases] == ["none", "auto"] * 2
    assert len({case.folder for case in cases}) == 4


def record(label: str, **more: Any) -> dict[str, Any]:
    identity = {"label": label, "data": {"name": "d"}, "seed": 0}
    return {**identity, "status": "done", "reason": "", **more}


MINE = MetricRecord(name="my_metric", summary="Mine", measure="a:b", unit="rad", better="higher")
KNOWN = columns.of([*(supplied.record for supplied in built_in_metrics()), MINE])


def test_row_has_medians_spread_and_the_worst_status() -> None:
    timed = [record("ap", times={"solve_s": s}, metrics={"psnr": 20 + s}, seconds_to_target=s) for s in (3, 1, 2, 10)]
    row = rows.row(timed, KNOWN.values())
    assert (row["seconds"], row["seconds_min"], row["seconds_max"], row["psnr"]) == (2.5, 1, 10, 22.5)
    assert (row["status"], row["repeats"], row["seconds_to_target"]) == ("done", 4, 2.5)
    row = rows.row([*timed, record("ap", status="stopped", reason="psnr=50 not reached")], KNOWN.values())
    assert (row["status"], row["reason"], row["seconds_to_target"]) == ("stopped", "psnr=50 not reached", None)
    row = rows.row(
        [*timed, record("ap", status="stopped"), record("ap", status="timed out", reason="why")], KNOWN.values()
    )
    assert (row["status"], row["reason"], row["seconds"]) == ("timed out", "why", 2.5)


def test_row_has_metrics_and_says_what_is_missing() -> None:
    runs_ = [
        record("ap", metrics={"my_metric": 2.0}, missing={"held_out": "too few LEDs"}),
        record("ap", metrics={"my_metric": 4.0}, missing={"held_out": "another", "pictures": "killed by SIGABRT"}),
    ]
    row = rows.row(runs_, KNOWN.values())
    assert row["my_metric"] == 3.0
    assert row["missing"] == "held_out: too few LEDs; pictures: killed by SIGABRT"
    assert (row["status"], row["reason"], row["psnr"]) == ("done", "", None)


@pytest.mark.parametrize(
    ("fast", "slow", "winner", "floor"),
    [
        ((1.0, 1.1, 1.2), (2.0, 2.1, 2.3), "a", 0.3),
        ((1.0, 1.1, 1.2), (1.1, 1.2, 1.5), None, 0.4),  # apart by 0.1
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), None, 0.0),
        ((1.0, 1.0, 1.0), (1.1, 1.1, 1.1), "a", 0.0),
        ((1.0, 1.2), (9.0, 9.1), None, None),  # two runs say too little about their spread
    ],
)
def test_no_winner_inside_the_noise_floor(
    fast: tuple[float, ...], slow: tuple[float, ...], winner: str | None, floor: float | None
) -> None:
    found = [record("a", times={"solve_s": s}) for s in fast] + [record("b", times={"solve_s": s}) for s in slow]
    (verdict,) = rows.verdicts(found, [KNOWN["seconds"]])
    assert (verdict.winner, verdict.noise_floor) == (winner, None if floor is None else pytest.approx(floor))
    assert bool(verdict.reason) == (winner is None)
    (turned,) = rows.verdicts(found, [replace(KNOWN["seconds"], better="higher")])
    assert turned.winner == (winner and "b")


def test_a_close_third_is_close_although_the_second_is_not() -> None:
    values = {"a": (10.0, 10.0, 10.0), "b": (9.0, 9.0, 9.0), "c": (5.0, 8.0, 12.0)}
    found = [record(label, metrics={"psnr": v}) for label, runs_ in values.items() for v in runs_]
    (verdict,) = rows.verdicts(found, [KNOWN["psnr"], KNOWN["ssim"]])
    assert verdict.winner is None
    assert "from c lies inside" in verdict.reason
    assert (verdict.difference, verdict.noise_floor) == (2, 7)


def run_python(
    code: str, patience: process.Patience | None = None, memory: float | None = None
) -> tuple[process.Ending, list[str]]:
    lines: list[str] = []
    return process.watch([sys.executable, "-c", code], lines.append, patience, memory), lines


def test_watch_hands_on_lines_and_the_exit_code() -> None:
    ending, lines = run_python("import sys; print('no'); print('a\\n', file=sys.stderr); sys.exit(3)")
    assert (ending.code, ending.by, ending.last_line) == (3, "itself", "a")
    assert lines == ["a", ""]


def test_watch_hands_on_all_of_much_and_keeps_the_last_words() -> None:
    """Also what is longer than a line should be, or still in the pipe when its writer has ended."""
    ending, lines = run_python(
        "import sys\n"
        "for i in range(60_000): print(i, file=sys.stderr)\n"
        "print('µ' * 200_000, 'done\\r\\nhalf\\rerror: why', end='', file=sys.stderr)"
    )
    assert lines[:60_000] == [str(i) for i in range(60_000)]
    assert "".join(lines[60_000:]) == "µ" * 200_000 + " donehalferror: why"
    assert max(map(len, lines)) < 100_000
    assert (ending.last_line, ending.last_words) == ("error: why", "why")


@pytest.mark.parametrize("written", ["b'a line of words\\n' * 500", "b'y' * 65536"])
def test_watch_ends_what_never_stops_writing(written: str) -> None:
    """Whoever reads is slower, and what has not been read yet does not pile up."""
    memory, pieces = PeakMemory(), 0
    before = memory.mb()

    def read(line: str) -> None:
        nonlocal pieces
        pieces += 1
        time.sleep(2e-5)

    begun = time.monotonic()
    code = f"import os\nwhile True: os.write(2, {written})"
    ending = process.watch([sys.executable, "-c", code], read, process.Patience(1.0))
    assert ending.by == "time limit"
    assert time.monotonic() - begun < 10
    assert pieces > 10
    assert memory.mb() - before < 50


def test_watch_does_not_wait_for_what_left_the_session() -> None:
    """A child of the program that has a session of its own still holds stderr open."""
    begun = time.monotonic()
    ending, (pid,) = run_python(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(child.pid, file=sys.stderr)"
    )
    os.kill(int(pid), signal.SIGKILL)
    assert ending.code == 0
    assert time.monotonic() - begun < 10


def test_watch_tells_ctrl_c_from_an_exit_code() -> None:
    """Ctrl-C counts also where the program ignores it, and loses no line; an exit code alone is none."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "time.sleep(0.3); print('a', file=sys.stderr, flush=True); os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(0.3); print('b', file=sys.stderr)"
    )
    ending, lines = run_python(code)
    assert (ending.code, ending.interrupted, lines) == (0, True, ["a", "b"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ending, _ = run_python("import sys; sys.exit(130)")
    assert (ending.code, ending.interrupted) == (130, False)


def test_the_last_words_are_no_event() -> None:
    for line, words in (
        ('{"event": "progress", "step": 3}', ""),
        ("error: no", "no"),
        ("warning: a small field of view", ""),
        ("{half", "{half"),
        ("x" * 9000, "x" * 1000),
    ):
        assert process.Ending(1, "itself", line).last_words == words


def alive(pid: str) -> bool:
    """Whether a process runs; a dead one that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_watch_ends_what_takes_too_long_with_its_children() -> None:
    """The child ignores everything that can be ignored and has a child of its own that holds stderr open."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "print(child, file=sys.stderr, flush=True) if child else None\n"
        "time.sleep(60)"
    )
    begun = time.monotonic()
    ending, lines = run_python(code, process.Patience(1.0))
    assert (ending.by, ending.code) == ("time limit", -9)
    assert time.monotonic() - begun < 10
    while time.monotonic() - begun < 10 and alive(lines[0]):
        time.sleep(0.05)
    assert not alive(lines[0])


def test_watch_ends_what_falls_silent() -> None:
    """The time before the first line does not count."""
    say = "for pause in (1.5, 0.3, 0.3, 60): time.sleep(pause); print('a', file=sys.stderr, flush=True)"
    ending, lines = run_python(f"import sys, time\n{say}", process.Patience(silent_s=1.0))
    assert (ending.by, lines) == ("time limit", ["a"] * 3)


def test_watch_ends_what_takes_too_much() -> None:
    code = "import time; kept = [bytearray(b'x' * 10_000_000) for i in range(12)]; time.sleep(60)"
    ending, _ = run_python(code, process.Patience(30), 80e6)
    assert (ending.by, ending.code) == ("memory limit", -9)
    ending, _ = run_python("kept = bytearray(b'x' * 10_000_000)", memory=80e6)
    assert (ending.by, ending.code) == ("itself", 0)
