"""What is done in a worker of dask: it has fpmtools' own processes solve tiles, once it has all that a run needs.

The tiles are not solved in dask's threads: a process of fpmtools' own writes a checkpoint when it is asked to leave,
and takes no dask worker with it when it crashes. Only a worker that passes :func:`examine` offers what tiles ask for,
the resource :data:`TILE` and one of the run's own; so others on the same scheduler are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

import fpmtools
from fpmtools.errors import FpmError
from fpmtools.runs.folder import RUN_FILE
from fpmtools.runs.spec import DataSpec, RunSpec, read_json
from fpmtools.tiling.workers import RETURNED, Result, WorkerLost, Workers, as_event

TILE = "fpmtools-tile"  # one for each tile that a worker solves at a time, of whatever run


class TileWorker(WorkerPlugin):
    """One run's processes in a dask worker: as many as it has threads, but one where it has a GPU.

    Parameters
    ----------
    name
        The run's, in this scheduler.
    needs
        The arguments of :func:`examine`; ``version``, that of fpmtools; and whether the worker is ``local``, started
        for this run. JSON-ready.
    """

    def __init__(self, name: str, needs: Mapping[str, Any]) -> None:
        self.name, self._needs = name, dict(needs)
        self.report: Result | None = None  # None: not yet known
        self._stack: contextlib.ExitStack | None = None
        self._workers: Workers | None = None

    async def setup(self, worker: Worker) -> None:
        """Look at what is here, and offer it."""
        version, local = self._needs.pop("version"), self._needs.pop("local")
        if local and hasattr(os, "setsid"):
            with contextlib.suppress(OSError):
                os.setsid()  # the terminal's Ctrl-C does not reach it: the run passes on what is to be
        if version != fpmtools.__version__:
            problem = f"has fpmtools {fpmtools.__version__}, and this is {version}"
            self.report = {"slots": 0, "problems": [problem]}
            return
        threads = worker.state.nthreads
        self._stack = contextlib.ExitStack()
        self._workers = self._stack.enter_context(Workers(threads))
        try:
            found = await asyncio.wrap_future(self._workers.submit(examine, *self._needs.values()))
        except Exception as error:
            found = {"problems": [f"cannot work: {' '.join(str(error).split())}"], "device": "cpu"}
        slots = 0 if found["problems"] else threads if found["device"] == "cpu" else 1
        if slots:
            await worker.set_resources(**{TILE: slots, self.name: slots})
        self.report = {**found, "slots": slots}

    async def teardown(self, worker: Worker) -> None:
        """Let tiles under way write their checkpoints, and end the processes."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await asyncio.to_thread(stack.close)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Result:
        """What came of ``function(*arguments)`` in a process here, as an event; nothing is raised."""
        try:
            if self._workers is None or self._stack is None:
                raise WorkerLost("nothing is begun any more")
            return {"event": RETURNED, "value": self._workers.submit(function, *arguments).result()}
        except Exception as error:
            return as_event(error)

    def stop(self) -> None:
        """Ask what is under way to leave."""
        if self._workers is not None:
            self._workers.stop()


def examine(spec: dict[str, Any], sees: str, folder: str, created: str) -> Result:
    """What this process has of what the run ``spec`` (:meth:`RunSpec.to_dict`) in ``folder`` needs.

    Parameters
    ----------
    spec
        With a small region as data: more of them are not read.
    sees
        What :func:`seen` says of them where the run was started.
    created
        What the run's ``run.json`` says of that; so its folder is known again.

    Returns
    -------
    dict
        ``problems``, each in a few words; ``device``, that tiles would be solved on.
    """
    from fpmtools.problem import choose_device
    from fpmtools.runs.running import make_solver

    wanted, device = RunSpec.from_dict(spec), "cpu"
    problems = []
    try:
        make_solver(wanted)
        device = str(choose_device(wanted.device))
    except FpmError as error:
        problems.append(str(error))
    try:
        shared = read_json(Path(folder, RUN_FILE)).get("created") == created
    except FpmError:
        shared = False
    if not shared:
        problems.append(f"does not see the run's folder {folder}: mount the same storage there")
    if (found := seen(wanted.data)) != sees:
        problems.append(f"sees other data at {wanted.data.source} ({found[:100]})")
    return {"problems": problems, "device": device}


def seen(data: DataSpec) -> str:
    """The digest of these data, or why they cannot be used, in one line."""
    from fpmtools.runs.running import load

    try:
        return load(data).digest
    except FpmError as error:
        return " ".join(str(error).split())


def called(name: str, function: Callable[..., Any], *arguments: Any) -> Result:
    """A task of dask: :meth:`TileWorker.call`, and ``worker``, by whom it was answered."""
    worker = get_worker()
    plugin = worker.plugins.get(name)
    if not isinstance(plugin, TileWorker):
        return {**as_event(WorkerLost("the run has left this worker")), "worker": worker.address}
    return {**plugin.call(function, *arguments), "worker": worker.address}


def reported(name: str, dask_worker: Worker) -> Result | None:
    """What the worker has found out about itself; None as long as it looks."""
    plugin = dask_worker.plugins.get(name)
    return plugin.report if isinstance(plugin, TileWorker) else None


def stopped(name: str, dask_worker: Worker) -> None:
    """Ask what is under way there to leave."""
    plugin = dask_worker.plugins.get(name)
    if isinstance(plugin, TileWorker):
        plugin.stop()
