"""``fpmtools inspect``: the page, the document, the figure, and the line that runs what was looked at."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.formats import native


def test_the_page_fits_a_terminal_and_ends_with_a_command_that_runs(
    data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["inspect", str(data_file), "--optics", "na=0.25", "--roi", "0,0,16,20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = lines[-1].strip()
    assert all(len(line) <= 80 for line in lines[:-1])
    assert any("file order" in line for line in lines)
    words = shlex.split(command)
    assert words[:4] == ["fpmtools", "run", "--data", str(data_file)]
    assert words[words.index("--roi") + 1] == "0,0,16,20"
    assert "na=0.25" in words


def test_json_and_figure(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "look.png"
    assert main(["inspect", str(data_file), "--json", "--figure", str(figure)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert document["figure"] == str(figure)
    assert {"name", "value", "severity", "meaning", "advice"} <= set(document["findings"][0])
    assert main(["inspect", str(data_file), "--figure", str(figure)]) == 5
    assert "--force" in capsys.readouterr().err


def test_warnings_come_first(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = native.save(dataset.select([0, 4]), tmp_path / "few.safetensors")
    assert main(["inspect", str(few)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("! ")
    assert any("warning" in line for line in lines[-5:])


def test_what_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing.mat")]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
