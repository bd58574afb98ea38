"""Tiles solved by the workers of a dask scheduler: some of its own on this machine, or one that runs, on many.

``local`` starts a scheduler and workers; else the address of one (``tcp://HOST:8786``), or the file in which it says
where it is. Whoever reaches a scheduler of dask can run code on its workers: it belongs in a trusted network, or behind
TLS. docs/slides.md tells how one is set up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed import Client, LocalCluster

import fpmtools
from fpmtools.dataset import Dataset
from fpmtools.errors import ClusterError, OptionError, SolverError
from fpmtools.runs.folder import RunFolder
from fpmtools.runs.spec import read_json
from fpmtools.tiling.cluster_worker import TILE, TileWorker, called, reported, seen, stopped
from fpmtools.tiling.workers import RETURNED, Result, WorkerLost, error_of

LOCAL = "local"
ANSWER_S = 7.0  # that a scheduler has to answer
LOOK_S = 2.0  # between two looks at who is there
SAMPLE = 32  # camera pixels along the side of what workers are to see of the data
SHOWN = 3  # workers that are named in an error
SETTINGS = {"distributed.comm.timeouts.connect": ANSWER_S, "distributed.comm.retry.count": 0}

OnEvent = Callable[[dict[str, Any]], object]


class Cluster:
    """An executor (see :mod:`fpmtools.tiling.workers`) that has tiles solved by a scheduler's workers.

    Before anything is submitted, :meth:`admit` tells them what the run needs.
    """

    def __init__(self, client: Client, where: str, tell: OnEvent, *, local: bool) -> None:
        self._client, self._where, self._tell, self._local = client, where, tell, local
        self._name = ""
        self._reports: dict[str, Result] = {}  # by the workers' addresses
        self._pending: dict[Future[Any], tuple[distributed.Future[Any], list[str]]] = {}
        self._failed: dict[str, set[str]] = {}  # workers by what failed there
        self._looked, self._waits, self._stopped = 0.0, False, False

    def admit(self, place: RunFolder, dataset: Dataset) -> str | None:
        """Tell all workers, also those that come later, what the run in ``place`` needs; the device of its tiles.

        None where the run leaves the device open and no worker is there to say. Raises :class:`ClusterError` with the
        names of workers that have another version of fpmtools, or lack the solver, the device or the files.
        """
        folder = place.path.resolve()
        self._name = f"fpmtools-{hashlib.sha256(str((folder, place.document['created'])).encode()).hexdigest()[:12]}"
        with self._reached():
            versions = self._client.run(importlib.metadata.version, "fpmtools", on_error="return")
        mine = fpmtools.__version__
        self._refuse({at: [_has(v, mine)] for at, v in versions.items() if v != mine})
        spec, shape = place.spec, dataset.image_shape
        start = spec.data.roi[:2] if spec.data.roi else (0, 0)
        size = [min(n, SAMPLE) for n in shape]
        corner = [first + (n - side) // 2 for first, n, side in zip(start, shape, size, strict=True)]
        sample = replace(spec, data=replace(spec.data, roi=(*corner, *size), digest=None))
        needs = {"version": mine, "local": self._local, "spec": sample.to_dict(), "sees": seen(sample.data)}
        needs |= {"folder": str(folder), "created": place.document["created"]}
        with self._reached():
            self._client.register_plugin(TileWorker(self._name, needs), name=self._name)
        self._look()
        self._refuse({at: report["problems"] for at, report in self._reports.items() if report["problems"]})
        return self._device(spec.device)

    def _device(self, wanted: str) -> str | None:
        found = {report["device"].partition(":")[0] for report in self._reports.values()}
        if wanted != "auto":
            return wanted
        if len(found) > 1:
            self._tell({"event": "warning", "text": "not all workers have a GPU: tiles are solved by processors"})
        return None if not found else "cpu" if "cpu" in found else found.pop()

    def _refuse(self, problems: Mapping[str, list[str]]) -> None:
        if problems:
            some = [f"worker {at} {'; '.join(said)}" for at, said in list(problems.items())[:SHOWN]]
            more = f", and {len(problems) - SHOWN} more workers" if len(problems) > SHOWN else ""
            raise ClusterError(f"{self._where}: {', '.join(some)}{more}")

    @property
    def at_once(self) -> int:
        """Tiles that may be under way: what fit workers offer now; one waits where there are none."""
        if time.monotonic() - self._looked > LOOK_S:
            self._look()
        return max(1, sum(int(report["slots"]) for report in self._reports.values()))

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have a worker call it; where it failed before, another one, if there is any."""
        future: Future[Any] = Future()
        what = repr(arguments)
        fit = [at for at, report in self._reports.items() if report["slots"]]
        others = [at for at in fit if at not in self._failed[what]] if what in self._failed else []
        with self._reached():
            given = self._client.submit(
                called, self._name, function, *arguments, key=f"tile-{uuid.uuid4().hex}", pure=False,
                resources={TILE: 1, self._name: 1}, workers=others or None,
            )  # fmt: skip
        self._pending[future] = given, others
        given.add_done_callback(functools.partial(self._settle, future, what))
        return future

    def stop(self) -> None:
        """Ask all that are under way to write a checkpoint and leave; nothing new is begun."""
        self._stopped = True
        with contextlib.suppress(Exception):
            self._client.run(stopped, self._name, on_error="ignore")

    def leave(self) -> None:
        """Have the workers end what they have started for the run."""
        if self._name and self._client.status == "running":
            with contextlib.suppress(Exception):
                self._client.unregister_worker_plugin(self._name)

    def _settle(self, future: Future[Any], what: str, given: distributed.Future[Any]) -> None:
        """What came of a task of dask is what came of the call."""
        if self._pending.pop(future, None) is None:
            return
        try:
            if given.status in ("cancelled", "lost"):  # the scheduler is gone, and has forgotten all
                raise self._gone()
            event = given.result(timeout=ANSWER_S)
            if event["event"] == RETURNED:
                future.set_result(event["value"])
                return
            error = error_of(event)
            if not isinstance(error, WorkerLost):
                self._failed.setdefault(what, set()).add(event["worker"])
        except distributed.KilledWorker as lost:
            error = WorkerLost(f"several workers were lost at it, {lost.last_worker.address} last")
        except (ClusterError, OSError, CancelledError, asyncio.CancelledError):  # or it went a moment ago
            error = self._gone()
        except Exception as raised:
            error = SolverError(f"{type(raised).__name__}: {' '.join(str(raised).split())}")
        future.set_exception(error)

    def _look(self) -> None:
        """Who has come, and who is gone."""
        with contextlib.suppress(Exception):
            there = self._client.nthreads()
            new = [at for at in there if at not in self._reports]
            found = self._client.run(reported, self._name, workers=new, on_error="ignore") if new else {}
            self._come({at: report for at, report in found.items() if report is not None})
            self._left(set(self._reports) - set(there))
        self._looked = time.monotonic()
        waits = not any(report["slots"] for report in self._reports.values())
        if waits and not self._waits:
            self._tell({"event": "warning", "text": f"{self._where} has no workers: tiles wait until some come"})
        self._waits = waits

    def _come(self, found: Mapping[str, Result]) -> None:
        for at, report in found.items():
            self._reports[at] = report
            if report["problems"] and self._looked:
                text = f"worker {at} is not used: it {'; '.join(report['problems'])}"
                self._tell({"event": "warning", "text": text})

    def _left(self, gone: set[str]) -> None:
        for at in gone:
            del self._reports[at]
            self._tell({"event": "warning", "text": f"worker {at} is gone; its tiles are solved by others"})
        for future, (given, others) in list(self._pending.items()):
            lost = others and not set(others) & set(self._reports)  # the only ones that were to do it
            if lost and self._pending.pop(future, None) is not None:
                given.cancel()
                future.set_exception(WorkerLost("the workers that it was for are gone"))

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, TimeoutError) as error:
            raise self._gone() from error

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"{self._where}: the scheduler is gone; finished tiles are kept, and a resumed run goes on once it is back"
        )


@contextlib.contextmanager
def connected(where: str, workers: int, tell: OnEvent) -> Iterator[Cluster]:
    """The cluster at ``where``: an address, a scheduler's file, or :data:`LOCAL` for ``workers`` processes here.

    Raises :class:`ClusterError` where nothing answers within :data:`ANSWER_S`, :class:`OptionError` for no such file.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(dask.config.set(SETTINGS))
        address = stack.enter_context(_started(workers)).scheduler_address if where == LOCAL else address_of(where)
        _ask(address, where)
        client = stack.enter_context(Client(address, timeout=ANSWER_S, set_as_default=False))
        if link := client.dashboard_link:
            tell({"event": "line", "text": f"dashboard: {link}"})
        name = "the cluster on this machine" if where == LOCAL else f"the scheduler {where}"
        cluster = Cluster(client, name, tell, local=where == LOCAL)
        stack.callback(cluster.leave)
        yield cluster


def address_of(where: str) -> str:
    """Of a scheduler: ``where`` itself, or what is written in the file of that name."""
    if "://" in where:
        return where
    if not Path(where).is_file():
        raise OptionError(f"scheduler {where}: no such file; give tcp://HOST:PORT, a scheduler's file, or {LOCAL}")
    address = read_json(where).get("address")
    if not isinstance(address, str):
        raise OptionError(f"scheduler {where}: this is no scheduler's file, for it has no address in it")
    return address


def _ask(address: str, where: str) -> None:
    """Whether a scheduler answers there; a client that gets no answer would take longer to give up than to ask."""

    async def ask() -> None:
        async with asyncio.timeout(ANSWER_S), distributed.rpc(address, timeout=ANSWER_S) as there:
            await there.identity()

    try:
        with ThreadPoolExecutor(1) as thread:  # this one may have a loop that runs, as in a notebook
            thread.submit(asyncio.run, ask()).result()
    except OSError as error:
        text = f"the scheduler {where} does not answer: is it running, and can it be reached from here?"
        raise ClusterError(text) from error
    except Exception as error:  # what some other server says is taken for anything
        why = f" ({error})" if isinstance(error, ValueError) else ""
        raise ClusterError(f"{where}: no scheduler of dask answers there{why}") from error


@contextlib.contextmanager
def _started(workers: int) -> Iterator[LocalCluster]:
    """A scheduler in this process, and workers in as many others; what dask writes to the disk goes with them."""
    with (
        tempfile.TemporaryDirectory(prefix="fpmtools-dask-", ignore_cleanup_errors=True) as folder,
        dask.config.set({"temporary-directory": folder}),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            memory_limit=0, silence_logs=logging.CRITICAL + 1,
        ) as cluster,
    ):  # fmt: skip
        yield cluster


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What dask logs is not for the terminal; what matters is told."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _has(found: object, mine: str) -> str:
    """What is wrong with a worker that has said this of its fpmtools."""
    if isinstance(found, importlib.metadata.PackageNotFoundError):
        return f"has no fpmtools: install {mine} there"
    return f"has fpmtools {found}, and this is {mine}" if isinstance(found, str) else f"does not answer ({found})"
