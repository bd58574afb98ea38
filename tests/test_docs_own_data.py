"""Every command, table and script of docs/your-own-data.md works, on data made as it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fpmtools.cli import main
from fpmtools.formats import load, settings
from fpmtools.leds import direction_sines, from_file, spiral

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-data.md"


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a reader has done what the page says, with other data of their own."""
    folder = tmp_path_factory.mktemp("bench")
    make, _ = blocks("python")
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True, timeout=120)
    for text in (*blocks("csv"), *blocks("yaml")):
        (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)
    images = np.stack([tifffile.imread(folder / "my_images" / f"led_{i}.tif") for i in range(9)])
    np.save(folder / "my_stack.npy", images)
    np.savez(folder / "my_stacks.npz", sample_1=images, sample_2=images + 5)
    tifffile.imwrite(folder / "dark.tif", np.full(images.shape[1:], 100, np.uint16))
    return folder


def test_the_table_is_the_board_that_the_images_were_made_with(bench: Path) -> None:
    np.testing.assert_allclose(from_file(bench / "leds.csv").na, direction_sines(spiral(9, 8.0), 74.0))
    assert settings.read(bench / "microscope.yaml").dark_level == 100


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, id=f"{i} {line.split()[1]}", marks=[pytest.mark.slow] if "compare" in line else [])
        for i, line in enumerate(COMMANDS)
    ],
)
def test_commands(
    command: str, bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *words = shlex.split(command)
    assert name == "fpmtools"
    monkeypatch.chdir(bench)
    assert main([*words, "--force"] if "--out" in words else words) == 0, capsys.readouterr().err
    if "--out" in words:
        out = bench / words[words.index("--out") + 1]
        assert any((out / picture).is_file() for picture in ("amplitude.png", "comparison.png"))


def test_the_script(bench: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", blocks("python")[1]], cwd=bench, check=True, timeout=120, capture_output=True, text=True
    ).stdout
    assert told.startswith("9 (64, 64) 0.345 µm [0.108 0.   ] []")


def test_the_dark_level_of_the_config_is_told_of(bench: Path) -> None:
    data = load(bench / "my_images", config=bench / "microscope.yaml")
    assert data.provenance["dark_level"] == 100
    assert data.intensities.max() > 3000
    assert data.calibration.used.all()


def test_every_option_on_the_page_exists() -> None:
    from fpmtools.cli._inputs import READING

    spelled = {word[2:].replace("-", "_") for word in re.findall(r"--[a-z][a-z-]*", PAGE.read_text())}
    assert spelled >= {"config", "leds", "axes", "key", "dark", "patterns", "leds_use", "max_na", "amplitudes"}
    assert spelled - {*READING} <= {"data", "solver", "solvers", "out", "z", "budget", "margin", "no_held_out"}


def test_the_drawing_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).is_file(), target
