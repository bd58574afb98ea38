"""Distributions made on the spot: a module and a .dist-info folder, which importlib.metadata finds like any other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fpmtools import registry
from fpmtools.registry.entries import entries

MakePlugin = Callable[..., Path]


def record_source(name: str, solver: str = "fpmtools_ap.solver:AlternatingProjection", **fields: Any) -> str:
    """Source of a module whose hook announces one solver."""
    given = "".join(f", {key}={value!r}" for key, value in fields.items())
    return (
        "from fpmtools import SolverRecord, hookimpl\n\n"
        "@hookimpl\n"
        "def fpmtools_solvers():\n"
        f"    return [SolverRecord(name={name!r}, summary='For a test', solver={solver!r}{given})]\n"
    )


@pytest.fixture
def announcing() -> Callable[..., str]:
    """:func:`record_source`."""
    return record_source


@pytest.fixture
def write_plugin(tmp_path: Path) -> MakePlugin:
    """``write_plugin(name, source, entry_point="name")`` writes a distribution and returns the folder that holds it.

    Each module first writes its name to the file ``imported`` in that folder, so that a test sees who was imported.
    """
    folder = tmp_path / "site"
    folder.mkdir()

    def write(
        name: str, source: str, entry_point: str | None = None, *, value: str | None = None, metadata: str | None = None
    ) -> Path:
        module = name.replace("-", "_")
        trace = f"with open({str(folder / 'imported')!r}, 'a') as file:\n    file.write({name + chr(10)!r})\n"
        (folder / f"{module}.py").write_text(trace + source)
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        points = f"[fpmtools]\n{entry_point or name} = {value or module}\n"
        (info / "entry_points.txt").write_text(metadata if metadata is not None else points)
        return folder

    return write


@pytest.fixture
def plugin(write_plugin: MakePlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePlugin]:
    """``write_plugin``, and the distribution is installed in this process for the time of the test."""

    def install(*args: Any, **kwargs: Any) -> Path:
        folder = write_plugin(*args, **kwargs)
        if str(folder) not in sys.path:
            monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        forget()
        return folder

    yield install
    forget()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def forget() -> None:
    """Let the registry look again."""
    for cached in (registry._scan, registry._announced, entries):
        cached.cache_clear()
