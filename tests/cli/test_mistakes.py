"""Every mistake of a user ends in one line, the right exit code, and no traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from fpmtools import storage
from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.formats import native

Bad = Callable[[Path, Dataset], list[str]]


def one_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str]:
    """Exit code and the error line; nothing else may have been printed but warnings."""
    code = main(arguments)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return code, lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("nope", 2, "unknown command 'nope'"),
        ("rum", 2, "did you mean 'run'?"),
        ("run --nope", 2, "fpmtools run --help"),
        ("run --solver in", 2, "did you mean 'inr'?"),
        ("run --solver ap -o sweps=3", 2, "did you mean 'sweeps'?"),
        ("run --solver ap -o sweeps=0", 2, "at least 1"),
        ("run --solver ap -o sweeps=many", 2, "is not int"),
        ("run --solver ap -o sweeps", 2, "key=value"),
        ("run --preset pper", 2, "did you mean 'paper'?"),
        ("run --z 1:2", 2, "MIN:MAX:COUNT"),
        ("run --z 3:-3:5", 2, "ascending"),
        ("run --z -3:3:1", 2, "MIN:MAX:COUNT"),
        ("run --z nan", 2, "finite"),
        ("run --roi 1,2,3", 2, "Y,X,H,W"),
        ("run --optics wavelenght_um=0.5", 2, "did you mean 'wavelength_um'?"),
        ("run --optics na=big", 2, "not a number"),
        ("run --solver ap --optics na=-0.1", 3, "positive"),
        ("run --solver ap --optics wavelength_um=-0.5", 3, "positive"),
        ("run --solver ap --optics wavelength_um=532", 3, "in µm"),
        ("run --solver ap --optics camera_pixel_um=40", 3, "under-sampled"),
        ("run --solver ap --roi 60,0,64,64", 3, "does not fit"),
        ("run --data nothing.mat", 3, "no such file"),
        ("run --data uconn_rad", 2, "did you mean 'uconn_red'?"),
        ("run --device tpu", 2, "unknown device"),
        ("run --dtype float16", 2, "--dtype"),
        ("run --budget 0", 2, "--budget"),
        ("run --budget 3d", 2, "60s or 2m"),
        ("run --target psrn=30", 2, "did you mean 'psnr'?"),
        ("run --target psnr=high", 2, "psnr=NUMBER"),
        ("run --target ssim=1.5", 2, "cannot be reached"),
        ("run --progress bars", 2, "--progress"),
        ("run --resume", 2, "--resume DIR"),
        ("run --resume nothing", 2, "no such folder"),
        ("run --resume .", 2, "holds no run"),
        ("run --from nothing.json", 3, "cannot be read"),
        ("run --resume a --from b", 2, "one of them"),
        ("run --loss l3", 2, "unknown loss"),
        ("run --threads 100000", 2, "threads must be from 1 to"),
        ("compare --threads 100000", 2, "threads must be from 1 to"),
        ("compare --device tpu", 2, "unknown device"),
        ("compare --target psrn=3", 2, "did you mean 'psnr'?"),
        ("compare --solvers ap,nope", 2, "unknown solver"),
        ("compare --solvers ap:sweeps=0", 2, "at least 1"),
        ("compare --solvers ap:sweeps=2,step=1", 2, "after colons"),
        ("compare --solvers ap:sweeps", 2, "key=value"),
        ("compare --solvers ap,ap", 2, "twice"),
        ("compare --solvers ,", 2, "at least one"),
        ("compare --repeats 0", 2, "--repeats"),
        ("compare --seeds 1,1", 2, "--seeds"),
        ("compare --seeds a", 2, "--seeds"),
        ("compare --memory 4", 2, "4GB"),
        ("compare --timeout -3s", 2, "--timeout"),
        ("compare --resume", 2, "--out"),
        ("compare --data sim:tilted,sim:tilted --out o", 2, "two data sets are called"),
        ("render nothing --z 1", 3, "no such file"),
        ("render nothing --z 1 --out field.jpeg", 2, ".npy"),
        ("evaluate nothing", 2, "--truth"),
        ("evaluate nothing --truth x.npy --out x.gif", 2, ".png"),
        ("solvers aq", 2, "unknown solver"),
        ("data fetch uconn_rd", 2, "did you mean 'uconn_red'?"),
        ("data info nothing.tif", 3, "no such file"),
        ("simulate --sample tiltd", 2, "did you mean 'tilted'?"),
        ("simulate --shape 64", 2, "H,W"),
        ("simulate --photons -3", 2, "photons"),
    ],
)
def test_arguments(
    arguments: str,
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, line = one_error(capsys, arguments.split())
    assert (found, says in line) == (code, True), line


def text_file(path: Path, good: Dataset) -> list[str]:
    path.write_text("not a microscope's file")
    return ["not a format"]


def truncated(path: Path, good: Dataset) -> list[str]:
    native.save(good, path)
    path.write_bytes(path.read_bytes()[:-100])
    return ["not a readable fpmtools file"]


def flipped_bit(path: Path, good: Dataset) -> list[str]:
    native.save(good, path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    return ["checksum"]


def another_kind(path: Path, good: Dataset) -> list[str]:
    storage.write_tensors(path, {"x": np.zeros(3)}, "reconstruction", {})
    return ["not an fpmtools dataset"]


def wrong_key(path: Path, good: Dataset) -> list[str]:
    scipy.io.savemat(path, {"pictures": np.ones((8, 9))})
    return ["no array of three dimensions", "pictures (8, 9)"]


def not_finite(path: Path, good: Dataset) -> list[str]:
    images = np.array(good.intensities)
    images[3, 2, 1] = np.nan
    native.save(good.with_images(images), path)
    return ["image 3", "not finite"]


def all_zero(path: Path, good: Dataset) -> list[str]:
    native.save(good.with_images(np.zeros_like(good.intensities)), path)
    return ["all images are zero"]


def led_missing(path: Path, good: Dataset) -> list[str]:
    native.save(replace(good, calibration=good.calibration.select(range(8))), path)
    return ["9 images, and a calibration of 8"]


def led_beyond_horizon(path: Path, good: Dataset) -> list[str]:
    na = good.na.copy()
    na[4] = 1.2, 0
    native.save(good.with_calibration(na=na), path)
    return ["LED 4", "direction sines"]


def hostile_matlab(path: Path, good: Dataset) -> list[str]:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["I_low"] = h5py.ExternalLink("elsewhere.h5", "/I_low")
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + path.read_bytes()[512:])
    return ["link"]


@pytest.mark.parametrize(
    "bad",
    [
        text_file,
        truncated,
        flipped_bit,
        another_kind,
        wrong_key,
        not_finite,
        all_zero,
        led_missing,
        led_beyond_horizon,
        hostile_matlab,
    ],
)
def test_files(bad: Bad, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ("bad.mat" if bad in (wrong_key, hostile_matlab) else "bad.safetensors")
    says = bad(path, dataset)
    code, line = one_error(capsys, ["run", "--solver", "ap", "--data", str(path), "--out", str(tmp_path / "out")])
    assert code == 3
    assert all(words in line for words in says), line


def test_led_outside_the_grid(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    na = dataset.na.copy()
    na[0] = 0.9, 0
    path = native.save(dataset.with_calibration(na=na), tmp_path / "steep.safetensors")
    arguments = ["run", "--solver", "ap", "--data", str(path), "--upsample", "1", "--no-critical-grid"]
    code, line = one_error(capsys, [*arguments, "--out", str(tmp_path / "out")])
    assert code == 3
    assert "LED" in line


def test_folder_in_use_is_left_alone(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for command in ("run --solver ap", "compare --solvers ap"):
        code, line = one_error(capsys, [*command.split(), "--data", str(data_file), "--out", str(tmp_path)])
        assert code == 5
        assert "option force" in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "words",
    [
        "run --solver app",
        "run --device tpu",
        "run --target psrn=3",
        "run --threads 100000",
        "run --loss l3",
        "run --data sim:titled",
        "run --data nothing.mat",
        "run --format hdf",
        "run --resume nothing",
        "compare --device tpu",
        "compare --target psrn=3",
        "compare --solvers ap:sweeps",
    ],
)
def test_mistakes_in_names_are_found_before_anything_heavy_is_imported(words: str, tmp_path: Path) -> None:
    code = (
        "import sys; from fpmtools.cli import main; code = main(sys.argv[1:])\n"
        "print(code, sorted({'torch', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split(maxsplit=1) in (["2", "[]\n"], ["3", "[]\n"]), done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


def test_folder_that_cannot_be_made(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    for folder in ("out", "out/inside"):
        arguments = ["run", "--data", str(data_file), "--solver", "ap", "--out", str(tmp_path / folder)]
        assert one_error(capsys, arguments)[0] == 5


def test_a_folder_of_several_results_names_them(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a comparison's."""
    assert one_error(capsys, ["render", str(tmp_path), "--z", "0"]) == (
        3, f"error: {tmp_path}: no reconstruction.safetensors in this folder"
    )  # fmt: skip
    shutil.copytree(finished, tmp_path / "a" / "one")
    code, line = one_error(capsys, ["render", str(tmp_path / "a"), "--z", "0"])
    assert (code, line.rpartition("in this folder: give one of ")[2]) == (3, str(tmp_path / "a" / "one"))


@pytest.mark.parametrize("command", ["render {run} --z 0 --out {file}", "simulate --out {file}"])
def test_file_is_not_overwritten(
    command: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.npy"
    file.write_text("precious")
    code, line = one_error(capsys, command.format(run=finished, file=file).split())
    assert (code, file.read_text()) == (5, "precious")
    assert "--force" in line


def test_z_out_of_range_and_missing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_error(capsys, ["render", str(finished), "--z", "2.1"])[0] == 2
    code, line = one_error(capsys, ["render", str(finished)])
    assert code == 2
    assert "--z" in line


def test_unexpected_failure_is_one_line_and_debug_shows_it(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a\nbug")

    monkeypatch.setattr("fpmtools.results.open_result", broken)
    code, line = one_error(capsys, ["render", str(finished), "--z", "0"])
    assert code == 1
    assert "ZeroDivisionError: a bug" in line
    assert "FPMTOOLS_DEBUG" in line
    monkeypatch.setenv("FPMTOOLS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["render", str(finished), "--z", "0"])
