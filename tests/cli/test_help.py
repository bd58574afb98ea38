"""Help under headings, the help command, and what a shell completes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from fpmtools.cli import COMMANDS, _groups, cli, main

Complete = Callable[..., list[str]]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["run", "compare", "inspect", "calibrate"])
def test_every_option_stands_under_one_heading(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    options = [parameter for parameter in command(name).params if isinstance(parameter, click.Option)]
    for option in options:
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b(?!-)", text, re.M)) == 1, option.name
    heads = re.findall(r"^(\w.*):$", text, re.M)
    assert heads[0] == "Data"
    assert heads == [title for title in (*_groups.HEADINGS, _groups.REST) if title in heads]
    unsorted = {option.name for option in options if _groups.heading(option) == _groups.REST}
    assert unsorted <= set(), "an option of these commands has no heading"
    assert not re.search(r"^  [A-Z|…]+$", text, re.M), "an argument stands among the options, and nothing is said of it"


def test_headings_name_only_options_that_there_are() -> None:
    known = {p.name for name in ("run", "compare", "inspect", "calibrate") for p in command(name).params}
    assert {name for names in _groups.HEADINGS.values() for name in names} <= known


def test_help_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run"], ["data", "fetch"], ["completion"]):
        assert main(["help", *words]) == main([*words, "--help"]) == 0
        helped, asked = re.split(r"(?=^Usage: )", capsys.readouterr().out, flags=re.M)[1:]
        assert helped.strip() == asked.strip()
    assert main(["help"]) == 0
    overview = capsys.readouterr().out
    assert all(f"  {name} " in overview for name in COMMANDS)
    assert main(["help", "runn"]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err


@pytest.fixture
def completed(environment: dict[str, str]) -> Complete:
    """What bash is told for the last of these words."""

    def ask(*words: str, **extra: str) -> list[str]:
        asked = {"COMP_WORDS": " ".join(["fpmtools", *words]), "COMP_CWORD": str(len(words))}
        done = subprocess.run(
            [sys.executable, "-c", "from fpmtools.cli import main; main([])"],
            env={**environment, **asked, "_FPMTOOLS_COMPLETE": "bash_complete", **extra},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    return ask


def test_names_are_completed(completed: Complete) -> None:
    assert completed("comp") == ["compare", "completion"]
    assert set(completed("run", "--solver", "a")) == {"adam", "admm", "ap"}
    assert completed("run", "--solver", "ap", "--preset", "p") == ["paper"]
    assert "sweeps=" in completed("run", "--solver", "ap", "-o", "s")
    assert completed("run", "--solver", "inr", "-o", "weights=e") == ["weights=explained", "weights=equal"]
    assert {"sim:tilted", "sim:thin"} < set(completed("run", "--data", "sim:t"))
    assert completed("run", "--data", "no-such") == ["no-such"], "a file"
    assert completed("compare", "--solvers", "ap,ep") == ["ap,epry"]
    assert completed("data", "fetch", "uconn_r") == ["uconn_red"]
    assert completed("solvers", "lb") == ["lbfgs"]
    assert "--solver" in completed("run", "--solv")
    assert completed("nothing", "--x") == [], "an unknown command is no error while it is typed"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_ones_that_the_shell_takes(
    shell: str, tmp_path: Path, fpmtools: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = fpmtools("completion", shell)
    assert done.returncode == 0
    assert "_FPMTOOLS_COMPLETE" in done.stdout
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(done.stdout)
    subprocess.run([shell, "-n", tmp_path / "script"], check=True, timeout=60)


def test_bash_completes_names_with_colons(environment: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    (tmp_path / "fpmtools").write_text(f'#!/bin/sh\nexec {sys.executable} -m fpmtools "$@"\n')
    (tmp_path / "fpmtools").chmod(0o755)
    script = 'eval "$(fpmtools completion bash)"; case $COMP_WORDBREAKS in *:*) exit 7;; esac\n'
    script += (
        "COMP_WORDS=(fpmtools run --data sim:til); COMP_CWORD=3; _fpmtools_completion fpmtools; echo ${COMPREPLY[@]}"
    )
    path = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split()[0] == "sim:tilted"


def test_data_list_tells_the_size_of_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fpmtools.formats import manifest

    entry = manifest.find("uconn_red")
    folder = tmp_path / entry.folder
    folder.mkdir()
    for file in entry.files:
        (folder / file.name).write_bytes(bytes(2000))
    monkeypatch.setenv("FPMTOOLS_DATA", str(tmp_path))
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["data"]}
    assert rows["uconn_red"]["bytes"] == 2000 * len(entry.files)
    assert rows["sim:thin"]["bytes"] is None
    assert main(["data", "list"]) == 0
    assert re.search(rf"uconn_red +{2 * len(entry.files)} kB ", capsys.readouterr().out)
