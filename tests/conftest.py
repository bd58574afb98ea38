"""Shared fixtures: measured data sets, processes, a disk that is full, and a writer of MATLAB's v7.3 files.

``FPMTOOLS_MOMENTS=60`` ends runs and comparisons at that many random moments in each way, for an hour or so; without
it a disk becomes full once for each solver and for a comparison.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import zoom

from fpmtools import Grid, PlaneStack
from fpmtools.colour.registration import Placement
from fpmtools.colour.result import CHANNELS_FOLDER, Channel, ColourReconstruction
from fpmtools.reconstruction import RESULT_FILE
from fpmtools.runs.folder import sha256
from fpmtools.tiling.mosaic import TILES_FOLDER, Mosaic
from fpmtools.tiling.mosaic import Part as Tile
from fpmtools.tiling.plan import Plan

# In the background of a script Ctrl-C is ignored, and under nohup SIGHUP, by everything that the tests start too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

ROOT = Path(__file__).resolve().parents[1]
MATLAB_CLASSES = {"float64": "double", "float32": "single", "complex128": "double"}


def matlab_group(group: h5py.Group, variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        if isinstance(value, dict):
            inner = group.create_group(name)
            inner.attrs["MATLAB_class"] = np.bytes_("struct")
            matlab_group(inner, value)
            continue
        array = np.atleast_2d(np.asarray(value))
        if array.dtype.kind == "U":
            array, kind = np.atleast_2d([ord(c) for c in str(value)]).astype(np.uint16), "char"
        else:
            kind = MATLAB_CLASSES.get(str(array.dtype), str(array.dtype))
        stored = array.T
        if array.dtype.kind == "c":
            parts = np.zeros(stored.shape, [("real", "f8"), ("imag", "f8")])
            parts["real"], parts["imag"] = stored.real, stored.imag
            stored = parts
        item = group.create_dataset(name, data=stored, compression="gzip" if stored.size > 100 else None)
        item.attrs["MATLAB_class"] = np.bytes_(kind)


def add_userblock(path: Path) -> None:
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(text.ljust(512, b"\0"))


@pytest.fixture(autouse=True, scope="session")
def one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The processes that tests start share the cores with others, and no cache with the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session")
def prefork(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleType, Path]]:
    """prefork.py, and where it serves."""
    file = ROOT / "tests" / "prefork.py"
    described = importlib.util.spec_from_file_location("prefork", file)
    assert described is not None
    assert described.loader is not None
    prefork = importlib.util.module_from_spec(described)
    described.loader.exec_module(prefork)
    place = tmp_path_factory.mktemp("prefork") / "socket"
    with subprocess.Popen([sys.executable, file, place], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.read(1) == prefork.READY
        yield prefork, place
        server.kill()


@pytest.fixture(scope="session")
def forked(prefork: tuple[ModuleType, Path]) -> Callable[..., Any]:
    """``forked(words)``: the command with these words as a process of its own."""
    module, place = prefork
    return functools.partial(module.Forked, place)


@pytest.fixture(scope="module")
def warm_workers(prefork: tuple[ModuleType, Path]) -> Iterator[Callable[..., Any]]:
    """The workers of comparisons in this process need not import torch: each is forked from one that has.

    It is what starts them otherwise.
    """
    from fpmtools import processes

    module, place = prefork
    usual = processes._started
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_started", functools.partial(module.worker, place))
        yield usual


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "draw" in metafunc.fixturenames:
        usual = "1" if "disk" in metafunc.fixturenames else "0"
        metafunc.parametrize("draw", range(int(os.environ.get("FPMTOOLS_MOMENTS", usual))))


class Disk:
    """A file system of its own at ``path``, as large as asked for."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def _mount(self, *words: str) -> None:
        done = subprocess.run(["mount", *words, self.path], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"only who may mount has a disk that is full: {done.stderr.strip()}")

    def grow(self) -> None:
        """There is room again."""
        self._mount("-o", "remount,size=64m")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """``disk(size)``: an empty file system with room for so many bytes; skips the test where none can be mounted."""
    if not shutil.which("mount"):
        pytest.skip("only who may mount has a disk that is full: there is no mount")
    made: list[Disk] = []

    def make(size: int) -> Disk:
        made.append(Disk(tmp_path / f"disk{len(made)}", size))
        return made[-1]

    yield make
    for one in made:
        subprocess.run(["umount", one.path], check=True)


@pytest.fixture
def measured_data() -> Callable[[str], Path]:
    """``measured_data("uconn_blood_smear")``: the folder of a measured data set; skips the test where it is absent."""

    def find(name: str) -> Path:
        for base in (os.environ.get("FPMTOOLS_DATA"), ROOT.parent / "shared" / "data"):
            if base and (Path(base) / name).is_dir():
                return Path(base) / name
        pytest.skip(f"measured data set {name} is absent (set FPMTOOLS_DATA to the folder that holds it)")

    return find


@pytest.fixture
def write_v73(tmp_path: Path) -> Callable[..., Path]:
    """``write_v73("a.mat", {"I_low": …})``: as MATLAB's -v7.3: HDF5 after 512 bytes, axes reversed, classes named."""

    def write(name: str, variables: dict[str, Any]) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w", userblock_size=512) as file:
            matlab_group(file, variables)
        add_userblock(path)
        return path

    return write


@pytest.fixture
def cells() -> Callable[..., NDArray[np.complex64]]:
    """``cells(height, width, phase_rad=1.0)``: discs that absorb and retard, on a bright background."""

    def make(height: int, width: int, phase_rad: float = 1.0, seed: int = 0) -> NDArray[np.complex64]:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        discs = np.zeros((height, width))
        for _ in range(6):
            radius = 0.15 * min(height, width)
            distance = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
            discs = np.maximum(discs, np.clip(radius - distance + 0.5, 0, 1))
        return ((1 - 0.4 * discs) * np.exp(1j * phase_rad * discs)).astype(np.complex64)

    return make


FRAME, FACTOR, PIXEL_UM, Z_UM = (53, 75), 2, 0.4, (-1.5, 2.0)  # (y, x) camera pixels; of the result, µm
WAVES = {"red": 0.63, "green": 0.53, "blue": 0.47}


def mosaic(folder: Path, seed: int) -> Mosaic:
    """Six tiles of 32 camera pixels at two z, smooth and each with a gain, a ramp and a bend of its own."""
    rng, plan = np.random.default_rng(seed), Plan.of(FRAME, 32, 8)
    found = []
    for tile in plan.tiles:
        height, width = (n * FACTOR for n in tile.box[2:])
        coarse = rng.normal(size=(2, 2, 5, 6))
        fields = [zoom(c[0], (height / 5, width / 6), order=1) * 0.1 + 1 for c in coarse]
        turns = [np.exp(1j * zoom(c[1], (height / 5, width / 6), order=1)) for c in coarse]
        planes = np.stack([f * t for f, t in zip(fields, turns, strict=True)]).astype(np.complex64)
        grid = Grid((height, width), (height * PIXEL_UM, width * PIXEL_UM), Z_UM)
        file = PlaneStack(planes, Z_UM, grid).save(folder / TILES_FOLDER / tile.name / RESULT_FILE)
        found.append(Tile(tile.name, sha256(file), 2 * 8 * height * width, 0.0))
    shape = (FRAME[0] * FACTOR, FRAME[1] * FACTOR)
    grid = Grid(shape, (shape[0] * PIXEL_UM, shape[1] * PIXEL_UM), Z_UM)
    gain = np.exp(0.3j * rng.normal(size=len(found)))
    ramp, bend = 1e-3 * rng.normal(size=(len(found), 2)), 1e-5 * rng.normal(size=(len(found), 3))
    made = Mosaic(plan, found, gain, ramp, grid, factor=FACTOR, planes=Z_UM, bend=bend)
    made.folder = folder
    made.metadata["wavelength_um"] = 0.5
    made.save(folder / RESULT_FILE)
    return made


@pytest.fixture(scope="session")
def coloured_mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a result in three colours, each a mosaic with two depths, one moved by a part of a pixel."""
    folder = tmp_path_factory.mktemp("slide")
    channels = []
    for k, (name, wave) in enumerate(WAVES.items()):
        one = mosaic(folder / CHANNELS_FOLDER / name, k)
        place = Placement((0.4, -1.3), 0.0, 0.9) if name == "red" else Placement()
        checksum = sha256(folder / CHANNELS_FOLDER / name / RESULT_FILE)
        channels.append(Channel(name, checksum, one.stored_bytes, 0.0, wave, 1.0 + 0.1 * k, place))
    ColourReconstruction(channels, "green", one.grid, folder=folder).save(folder / RESULT_FILE)
    return folder
