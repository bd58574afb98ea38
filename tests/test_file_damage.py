"""Whatever happens to a byte of a saved file, it is refused in one line; nothing is ever read that was not written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpmtools
from fpmtools import engine, known, registry, storage
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.formats import native
from fpmtools.report import rendering
from fpmtools.simulation import simulate
from fpmtools.testing import small_problem

FLIPS = 500


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate("tilted", image_shape=(16, 20))


@pytest.fixture(scope="module")
def files(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """One file of each kind, made the usual way, and what opens it."""
    folder = tmp_path_factory.mktemp("kinds")
    planes = fpmtools.reconstruct(data, "ap", z_um=(-1.0, 1.0), options={"sweeps": 1})
    inr = fpmtools.reconstruct(data, "inr", z_um=0.0, options={"steps": 2})
    solver = registry.solver_class("ap")
    checkpoint = folder / "checkpoint.safetensors"
    engine.solve(small_problem(), solver(solver.Options()), budget_s=1e-9, checkpoint=checkpoint)
    truth = known.save(data, folder / "truth.safetensors")
    assert truth is not None
    return {
        "planes": (planes.save(folder / "planes.safetensors"), fpmtools.open_result),
        "inr": (inr.save(folder / "inr.safetensors"), fpmtools.open_result),
        "dataset": (native.save(data, folder / "data.safetensors"), native.read),
        "checkpoint": (checkpoint, lambda path: storage.read_tensors(path, "checkpoint")),
        "rendered": (
            rendering.render(planes, (0.0,), data.truth).save(folder),
            lambda path: rendering.Rendered.load(path.parent),
        ),
        "truth": (truth, lambda path: storage.read_tensors(path, "truth")),
    }


KINDS = ("planes", "inr", "dataset", "checkpoint", "rendered", "truth")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["header", "data"])
def test_every_flipped_bit_is_noticed(kind: str, part: str, files: Any, tmp_path: Path) -> None:
    source, open_file = files[kind]
    whole = bytearray(source.read_bytes())
    path = tmp_path / source.name
    path.write_bytes(whole)
    open_file(path)
    start = 8 + int.from_bytes(whole[:8], "little")
    low, high = (0, start) if part == "header" else (start, len(whole))
    rng = np.random.default_rng(1)
    accepted, said = [], []
    for at, bit in zip(rng.integers(low, high, FLIPS), rng.integers(0, 8, FLIPS), strict=True):
        whole[at] ^= 1 << bit
        path.write_bytes(whole)
        try:
            open_file(path)
            accepted.append((int(at), int(bit)))
        except DataError as error:
            said.append(str(error))
        whole[at] ^= 1 << bit
    assert accepted == []
    assert all(len(line.splitlines()) == 1 for line in said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_length_is_refused(kind: str, files: Any, tmp_path: Path) -> None:
    source, open_file = files[kind]
    whole = source.read_bytes()
    path = tmp_path / source.name
    for content in (whole + b"\0", whole[:-1], whole[:100], whole[:7], b"", whole * 2):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"\.safetensors: ") as caught:
            open_file(path)
        assert len(str(caught.value).splitlines()) == 1


def test_an_older_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FORMAT_VERSION", 1)
    path = storage.write_tensors(tmp_path / "old.safetensors", {"a": np.ones(3)}, "dataset", {})
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"format 1, and this fpmtools reads format 2: make it again"):
        native.read(path)


@pytest.mark.parametrize(
    "table",
    [
        b"[" * 100_000,
        b'{"__metadata__": {"sha256": "", "fpmtools": "' + b"[" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": 1e400}',
        b'{"__metadata__": {"sha256": "0", "fpmtools": "{}"}, "a": {"dtype": "F32", "shape": [1e9, 1e9]}}',
        b"\xff\xfe{}" * 20,
    ],
)
def test_a_header_that_is_made_to_hurt_is_one_line(table: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(table).to_bytes(8, "little") + table)
    with pytest.raises(DataError, match="not a readable fpmtools file") as caught:
        native.read(path)
    assert len(str(caught.value)) < 500
