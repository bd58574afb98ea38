"""What reaches the terminal: nothing that it obeys, nothing that is wider than it, and nothing that can end a run."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpmtools.cli import compare, main
from fpmtools.cli._output import echo, print_json, print_table, visible
from fpmtools.cli._progress import Progress, bar_line
from fpmtools.formats import writing

COMMAND = [sys.executable, "-m", "fpmtools"]
HOSTILE = "a\x1b]0;taken\x07\x9b2J\x7f\u202e\udce9\ud800\r.mat"
QUIET = ["-o", "sweeps=1", "--z", "0"]


def on_terminal(command: list[str], width: int, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code, and all that a command writes to a terminal of ``width`` columns."""
    return shown_by(
        lambda terminal: subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal
        ),
        width,
    )


def shown_by(start: Callable[[int], Any], width: int) -> tuple[int, str]:
    """The same of a process that is started with the terminal."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with start(terminal) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO when the last writer has left
            while part := os.read(master, 65536):
                shown += part
        os.close(master)
        return process.wait(), shown.decode()


def lines_of(shown: str) -> list[str]:
    """What stood on a line of its own at some time, without colours."""
    return re.split(r"[\r\n]+", re.sub(r"\033\[[0-9;]*[mK]", "", shown))


def width_of(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line)


@pytest.fixture
def terminal(environment: dict[str, str]) -> dict[str, str]:
    plain = {key: value for key, value in environment.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    return plain | {"TERM": "xterm"}


def test_terminal_escapes_in_names_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not: in errors, lines, tables and labels they are spelled out."""
    monkeypatch.chdir(tmp_path)
    assert main(["data", "info", HOSTILE]) == 3
    Path("a\x1b[2J.npy").write_bytes(b"")
    assert main(["data", "info", "a\x1b[2J.npy"]) == 3
    print_table(["na\x1bme", "number"], [[HOSTILE, "1"]], right=["number"])
    progress = Progress("\x1b[2Jap")
    progress({"step": 1, "total": 1, "loss": 1.0, "what": "\x07loss", "seconds": 0.1})
    progress.show({"event": "line", "text": "\x1b[2J of a solver"})
    out, err = capsys.readouterr()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", out + err)
    for spelled in (r"\x1b]0;taken\x07", r"\x9b2J", r"\x7f", r"\u202e", r"\xe9", r"\ud800"):
        assert spelled in out
        assert spelled in err


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_what_is_printed_can_be_shown_and_is_else_untouched(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n" for letter in shown)
    kept = "".join(letter for letter in text if visible(letter) == letter)
    assert [letter for letter in kept if letter not in shown] == []
    assert visible(shown) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_are_not_utf8_and_narrow_encodings(encoding: str, tmp_path: Path) -> None:
    """In a process: a name of bytes, and a terminal that has no Greek letters."""
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*map(os.fsencode, COMMAND), b"data", b"info", b"caf\xe9.mat"],
        cwd=tmp_path, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (3, b"", 1), done.stderr
    assert rb"caf\xe9.mat" in done.stderr
    listed = subprocess.run([*COMMAND, "solvers"], env=environment, capture_output=True, check=False)
    assert (listed.returncode, listed.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_json_stays_json(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", file)
    print_json({HOSTILE: ["µ𝜇", HOSTILE]})
    text = file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert json.loads(text) == {HOSTILE: ["µ𝜇", HOSTILE]}
    assert not re.search(r"[\x7f-\x9f\u202e]", text)


EVENT = {"step": 1234, "total": 5678, "loss": 0.00123, "psnr": 31.234, "seconds": 123.4, "remaining_s": 4000.0}


@given(
    st.text(max_size=40).map(visible).filter(lambda text: not re.search(r"[\n\t]", text)),
    st.integers(20, 200),
    st.sampled_from(["loss", "amplitude loss", "feature-domain loss"]),
    st.booleans(),
    st.sampled_from([None, 31.2]),
)
def test_the_bar_is_never_wider_than_its_room(label: str, room: int, what: str, at_most: bool, psnr: Any) -> None:
    from rich.cells import cell_len

    line = bar_line(label, {**EVENT, "what": what, "at_most": at_most, "psnr": psnr}, room)
    assert cell_len(line) <= room
    assert "\n" not in line


def test_the_bar_is_86_characters_wide_and_floods_an_80_column_terminal() -> None:
    """It does not: it shares the room with the numbers, which leave out first what matters least."""
    assert bar_line("inr", EVENT, 110).endswith("1234/5678  loss 1.230e-03  image PSNR 31.23 dB  123.4 s, 67 min left")
    at_80 = bar_line("inr", EVENT, 79)
    assert ("█" in at_80, "image PSNR" in at_80, "67 min left" in at_80) == (False, True, True)
    at_60 = bar_line("inr", EVENT, 60)
    assert ("█" in at_60, "image PSNR" in at_60, "loss" in at_60, "67 min left" in at_60) == (True, False, True, True)
    assert bar_line("inr", {**EVENT, "loss": None, "psnr": None}, 40) == "inr  1234/5678  123.4 s, 67 min left"


def test_a_total_that_is_only_a_bound_has_no_remaining_time() -> None:
    """``ap``'s total is a cap: neither a bar nor a time left is made of it."""
    line = bar_line("ap", {**EVENT, "at_most": True, "what": "amplitude loss"}, 120)
    assert line == "ap  step 1234 of at most 5678  amplitude loss 1.230e-03  image PSNR 31.23 dB  123.4 s"


@pytest.mark.slow
@pytest.mark.parametrize("width", [60])
def test_a_run_on_a_terminal_keeps_to_its_width(
    width: int, data_file: Path, tmp_path: Path, forked: Callable[..., Any]
) -> None:
    words = ["run", "--data", str(data_file), "--solver", "ap", "-o", "sweeps=300", "-o", "join_below=0"]
    words += ["--z", "0", "--out", str(tmp_path / "out")]
    code, shown = shown_by(
        lambda terminal: forked(words, environment={"TERM": "xterm"}, stdout=terminal, stderr=terminal), width
    )
    rewritten = [line for line in shown.split("\n") if "\r" in line.rstrip("\r")]
    assert code == 0
    assert rewritten
    for line in lines_of("\n".join(rewritten)):
        assert width_of(line) < width, line


def test_no_colour_codes_but_on_a_terminal_that_wants_them(terminal: dict[str, str]) -> None:
    command = [*COMMAND, "solvers"]
    assert "\033[1m" in on_terminal(command, 120, terminal)[1]
    for plain in (terminal | {"NO_COLOR": "1"}, terminal | {"TERM": "dumb"}):
        assert "\033" not in on_terminal(command, 120, plain)[1]
    assert b"\033" not in subprocess.run(command, env=terminal, capture_output=True, check=True).stdout


def test_a_table_is_never_wider_than_the_terminal(terminal: dict[str, str]) -> None:
    code, shown = on_terminal([*COMMAND, "solvers"], 60, terminal)
    table = shown.split("\r\n\r\n")[0].split("\r\n")
    assert code == 0
    assert max(width_of(line) for line in lines_of("\n".join(table))) == 60


HEAD = ["solver", "status", *(f"number {k} (unit)" for k in range(8))]
ROWS = [["inr:preset=paper", "done", *(f"{k + 0.12345}" for k in range(8))], ["ap", "done", *["1.00000"] * 8]]


@pytest.mark.parametrize("width", [30, 80, 200])
def test_numbers_are_never_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table has no room for them its records stand beside each other, or one after the other."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr("fpmtools.cli._output.is_terminal", lambda stream: True)
    monkeypatch.setattr("fpmtools.cli._output.terminal_width", lambda stream: width)
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(HEAD, ROWS, right=HEAD[2:])
    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for row in ROWS:
        for cell in row[1:]:
            assert re.search(rf"(^|\s){re.escape(cell)}(\s|$)", text), cell
    assert {30: 22, 80: 11, 200: 4}[width] >= len([line for line in text.splitlines() if line.strip(" ─")])


@pytest.mark.slow
def test_losing_stderr_loses_the_run(
    data_file: Path, tmp_path: Path, environment: dict[str, str], forked: Callable[..., Any]
) -> None:
    """It does not: a reader that has left, a terminal that is gone, a closed descriptor."""
    read, broken = os.pipe()
    os.close(read)
    master, gone = pty.openpty()
    os.close(master)
    words = ["run", "--data", str(data_file), "--solver", "ap", *QUIET]
    for style, stderr in {"json": broken, "auto": gone}.items():
        told = [*words, "--out", str(tmp_path / style), "--progress", style]
        with forked(told, environment={"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=stderr) as done:
            printed, _ = done.communicate()
        assert (done.returncode, b"against the truth" in printed) == (0, True)
        assert (tmp_path / style / "run.json").exists()
    os.close(broken)
    os.close(gone)
    closed = ["sh", "-c", f'exec "$@" --out {tmp_path / "closed"} 2>&-', "sh", *COMMAND, *words]
    assert subprocess.run(closed, env=environment, stdout=subprocess.PIPE, check=False).returncode == 0
    mistake = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "rum"], env=environment, check=False)
    assert mistake.returncode == 2


def test_stderr_may_go_away_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    progress = Progress("ap")
    progress({**EVENT, "step": 5678})
    progress.show({"event": "line", "text": "words"})
    progress.finish()
    echo("error: x", err=True)
    sys.stderr.close()
    echo("error: x", err=True)


def test_a_file_shows_every_few_seconds_how_far_calibrating_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress("ap")
    for step in range(1, 61):
        progress.show({"event": "calibrating", "step": step, "total": 60})
        now += 0.4
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"ap  calibrating: step {step}/60" for step in (1, 14, 27, 40, 53)]


def test_a_comparison_says_whose_data_are_calibrated(capsys: pytest.CaptureFixture[str]) -> None:
    shown = compare._Shown("auto", verbose=False)
    for title in ("first", "first", "second"):
        shown(title, {"event": "calibrating", "step": 1, "total": 60})
    assert capsys.readouterr().err.splitlines() == [f"{name}  calibrating: step 1/60" for name in ("first", "second")]


def test_a_full_stdout_is_one_line(environment: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, "solvers"], env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (5, b"error: cannot write the results: No space left on device\n")


def test_psnr_means_two_things_on_one_screen(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not: the progress says whose it is, and so does the summary."""
    arguments = ["--solver", "ap", "-o", "sweeps=2", "--out", str(tmp_path / "out")]
    assert main(["run", "--data", str(data_file), *arguments]) == 0
    out, err = capsys.readouterr()
    assert err.count("PSNR") == err.count("image PSNR") > 0
    assert out.count("PSNR") == out.count("against the truth: PSNR") == 1


def test_rendering_shows_a_bar(finished: Path, tmp_path: Path, forked: Callable[..., Any]) -> None:
    words = ["render", finished, "--z", "-2:2:400", "--shape", "300,300", "--out", tmp_path / "a.npy"]
    terminal = {"TERM": "xterm", "NO_COLOR": "1"}
    code, text = shown_by(lambda end: forked(words, environment=terminal, stdout=end, stderr=end), 80)
    assert code == 0, text
    bars = [line for line in lines_of(text) if "░" in line or "█" in line]
    assert len(bars) > 3
    assert all(re.match(r"a\.npy  [█░]+  plane \d+/400  \d+\.\d s", line) for line in bars)
    assert max(map(len, bars)) < 80
    assert "plane 400/400" in bars[-1]


def test_rendering_into_a_file_says_a_line_now_and_then(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes no time says nothing, nor does --quiet."""
    words = ["render", str(finished), "--force", "--out", str(tmp_path / "a.npz"), "--z"]
    assert main([*words, "-2:2:3"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(writing, "SOON_S", 0.0)
    assert main([*words, "-2:2:3", "--quiet"]) == main([*words, "0"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "-2:2:3"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [re.match(r"a\.npz  plane (\d/3)  ", line)[1] for line in lines] == ["1/3", "3/3"]
