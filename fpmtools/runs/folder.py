"""The folder of a run: made at the start, locked while somebody works in it, and what a resume goes by.

``run.json`` is there from the first moment on. It says ``status: running`` until everything is written; ``solved`` in
it says how the solve ended, once its result is safe. Imports neither torch nor NumPy before something is written.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import itertools
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpmtools.errors import DataError, InUse, OptionError, OutputError
from fpmtools.interrupts import postponed
from fpmtools.runs.journal import JOURNAL_FILE, Journal
from fpmtools.runs.spec import SCHEMA, RunSpec, read_json

if sys.platform != "win32":  # there nothing is locked
    import fcntl

RUN_FILE = "run.json"
RESULT_FILE = "reconstruction.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
PATIENCE_S = 1.0  # a process that was killed a moment ago is still letting go of its folder
LOG_FILE = "run.log"
PREVIEW_FILE = "preview.png"
CALIBRATION_FILE = "calibration.safetensors"  # where a joint fit was made

RUNNING = "running"
INTERRUPTED = "interrupted"
PARTIAL = "partial"  # of a run in tiles: all are done but those that failed
FINISHED = frozenset({"done", "reached", "stopped"})  # statuses of a run that did what it was asked for


class RunFolder:
    """An open folder of a run, locked; ``document`` is what its ``run.json`` says.

    Made by :meth:`create` or :meth:`reopen`, which raise :class:`OutputError` when another process works in it.
    """

    def __init__(self, path: Path, lock: int | None, document: dict[str, Any]) -> None:
        self.path = path
        self.document = document
        self._lock = lock

    @classmethod
    def create(cls, path: str | Path, spec: RunSpec, *, force: bool = False, command: Sequence[str] = ()) -> RunFolder:
        """A folder for a new run, with its first ``run.json``.

        With ``force`` it may hold files: an older run's record and checkpoint go at once, its other files when there
        are new ones. Raises :class:`OutputError` when it holds any and ``force`` is not given, or cannot be written.
        """
        path = Path(path)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        document = {"schema": SCHEMA, "status": RUNNING, "spec": spec.to_dict(), "created": created}
        document |= {"command": list(command)}
        check_free(path, force)
        with _cannot_write(path):
            if not path.is_dir():
                with postponed(), contextlib.suppress(FileExistsError, NotADirectoryError):  # someone else was faster
                    return cls(path, _made_with(path, document), document)
            lock = _locked(path)
            try:
                check_free(path, force)  # someone else's run may be in it by now, and over
            except OutputError:
                _unlock(lock)
                raise
            folder = cls(path, lock, document | {"replaces": _written_before(path)})
            for older in (RUN_FILE, CHECKPOINT_FILE, CALIBRATION_FILE, JOURNAL_FILE, LOG_FILE, PREVIEW_FILE):
                (path / older).unlink(missing_ok=True)
        try:
            folder.update()
            folder.remove_leftovers()
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def create_numbered(cls, stem: Path, spec: RunSpec, *, command: Sequence[str] = ()) -> RunFolder:
        """The first of ``stem``, ``stem-2``, ``stem-3``, … that is not there yet; two processes never get the same."""
        for i in itertools.count(1):
            path = stem if i == 1 else stem.with_name(f"{stem.name}-{i}")
            if not os.path.lexists(path):
                with contextlib.suppress(OutputError):
                    return cls.create(path, spec, command=command)
                if not os.path.lexists(path):
                    return cls.create(path, spec, command=command)  # says why it cannot be made
        raise AssertionError

    @classmethod
    def reopen(cls, path: str | Path) -> RunFolder:
        """The folder of a run that was begun; :class:`OptionError` when there is no such folder, or no run in it."""
        path = Path(path)
        if not path.is_dir():
            raise OptionError(f"{path}: no such folder; there is no run to resume")
        if not (path / RUN_FILE).is_file():
            raise OptionError(f"{path} holds no run: there is no {RUN_FILE} in it")
        with _cannot_write(path):
            lock = _locked(path, PATIENCE_S)
        try:
            document = read_json(path / RUN_FILE)
            if "spec" not in document:
                raise DataError(f"{path / RUN_FILE} was written by another version of fpmtools; start the run afresh")
            folder = cls(path, lock, document)
            RunSpec.from_dict(document["spec"])
            folder.remove_leftovers()
        except BaseException:
            _unlock(lock)
            raise
        return folder

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Unlock it."""
        lock, self._lock = self._lock, None
        _unlock(lock)

    @property
    def spec(self) -> RunSpec:
        """What is run here, with all that an earlier start has chosen for it."""
        return RunSpec.from_dict(self.document["spec"]).resolved(self.document.get("resolved") or {})

    @property
    def checkpoint(self) -> Path:
        """Where the state of the solver is kept."""
        return self.path / CHECKPOINT_FILE

    @property
    def calibration(self) -> Path:
        """What a joint fit has found, once it has."""
        return self.path / CALIBRATION_FILE

    @property
    def journal(self) -> Journal:
        """What has been found out after the solve."""
        return Journal(self.path)

    def update(self, **more: Any) -> None:
        """Add to the document, and write it."""
        from fpmtools import storage

        self.document |= more
        storage.write_json(self.path / RUN_FILE, self.document)

    def give_budget(self, budget_s: float) -> None:
        """Let the run have this many seconds of solving all in all, whatever it was given first."""
        asked = RunSpec.from_dict(self.document["spec"])
        self.document["spec"] = replace(asked, limits=replace(asked.limits, budget_s=budget_s)).to_dict()

    def solved(self) -> tuple[str, str]:
        """How the solve has ended, and an empty string; or what is wrong with its result.

        Two empty strings where it has not ended. The result is compared with its checksum, and not opened.
        """
        ended = str(self.document.get("solved") or "")
        if not ended:
            return "", ""
        file = self.path / RESULT_FILE
        try:
            if sha256(file) == self.document.get("result_sha256"):
                return ended, ""
            return "", f"{file} is damaged: its checksum is another"
        except OSError as error:
            return "", f"{file} cannot be read ({error.strerror or error})"

    def remove_leftovers(self) -> None:
        """Remove what a killed process had begun to write."""
        from fpmtools import storage

        storage.sweep(self.path)

    def abandon(self) -> None:
        """Remove the folder of a run that could not even begin, if there is nothing else in it."""
        with contextlib.suppress(OSError):
            (self.path / RUN_FILE).unlink()
            (self.path / LOG_FILE).unlink(missing_ok=True)
            self.path.rmdir()


def _written_before(path: Path) -> list[str]:
    """Names of the files that an older run in this folder says it has written."""
    with contextlib.suppress(DataError):
        names = read_json(path / RUN_FILE).get("files")
        return [n for n in names if isinstance(n, str) and Path(n).name == n] if isinstance(names, list) else []
    return []


def check_free(path: Path, force: bool) -> None:
    """Raise :class:`OutputError` when ``path`` is no place for new results: a file, or a folder that is in use."""
    with _cannot_write(path):
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise OutputError(f"{path} is a file; the output must be a folder")
        if not force and (count := sum(1 for _ in path.iterdir())):
            raise OutputError(
                f"output folder {path} is not empty ({count} file{'s' * (count > 1)}); choose another one, or use the "
                "option force to replace the results in it"
            )


def claim(path: str | Path, force: bool = False) -> Path:
    """Make sure that results can be written into ``path``, which is created if need be, as :meth:`RunFolder.create`."""
    path = Path(path)
    check_free(path, force)
    with _cannot_write(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write in {path}: no permission")
    return path


def claim_numbered(stem: Path) -> Path:
    """The first of ``stem``, ``stem-2``, … that is not there yet, made; two processes never get the same."""
    for i in itertools.count(1):
        path = stem if i == 1 else stem.with_name(f"{stem.name}-{i}")
        with _cannot_write(path), contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path
    raise AssertionError


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else works in the folder meanwhile; :class:`OutputError` when somebody does."""
    with _cannot_write(path):
        lock = _locked(path, PATIENCE_S)
    try:
        yield
    finally:
        _unlock(lock)


def name_for(action: str, data: str) -> Path:
    """Where a run on ``data`` goes if nobody says: a folder in ``out``, named after the data and what is done."""
    return Path("out") / re.sub(r"[^A-Za-z0-9._-]+", "-", f"{Path(data).stem}-{action}")[:100]


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _made_with(path: Path, document: dict[str, Any]) -> int | None:
    """Make the folder ``path`` with a ``run.json``, in one step, and return its lock; FileExistsError if it is there.

    Whoever sees the folder sees a run in it, also when this process is killed in the next instant.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}.part"
    part.mkdir()
    lock = None
    try:
        lock = _locked(part)
        with (part / RUN_FILE).open("wb") as file:
            file.write((json.dumps(document, indent=2) + "\n").encode())
            file.flush()
            part.rename(path)  # onto nothing, or an empty folder
            os.fsync(file.fileno())
    except BaseException as error:
        _unlock(lock)
        (part / RUN_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            part.rmdir()
        if isinstance(error, OSError) and path.is_dir() and any(path.iterdir()):
            raise FileExistsError(str(path)) from None
        raise
    return lock


def _locked(path: Path, patience_s: float = 0.0) -> int | None:
    """A lock on a folder, which the system releases with the process; None where folders cannot be locked."""
    if sys.platform == "win32":
        return None
    descriptor, until = os.open(path, os.O_RDONLY), time.monotonic() + patience_s
    try:
        while not _taken(descriptor):
            if time.monotonic() > until:
                raise InUse(f"{path} is in use: another process works in it; wait for it, or choose another folder")
            time.sleep(0.02)
    except (OSError, OutputError) as error:
        os.close(descriptor)
        if isinstance(error, OutputError):
            raise
        return None
    _LOCKS.add(descriptor)
    return descriptor


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(lock: int | None) -> None:
    if lock is not None and sys.platform != "win32":
        _LOCKS.discard(lock)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


_LOCKS: set[int] = set()


def _let_go() -> None:
    """A child that a plugin forks, and that may stay, must not keep its parent's folders locked."""
    for lock in _LOCKS:
        os.close(lock)
    _LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def _cannot_write(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError.of(error, f"in {path}") from error
