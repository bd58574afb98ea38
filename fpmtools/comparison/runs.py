"""The runs of a comparison: each ``python -m fpmtools run`` in a process of its own, and the record it leaves."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpmtools.comparison.process import Ending, watch
from fpmtools.comparison.spec import Spec, slug
from fpmtools.errors import EXIT_INTERRUPTED, FpmError
from fpmtools.reconstruction import Reconstruction

RUN_FILE = "run.json"
GOOD = frozenset({"done", "reached", "stopped"})
HOPELESS = frozenset({"timed out", "out of memory"})  # another repeat would cost as much and end the same way
OnEvent = Callable[[str, Mapping[str, Any]], None]
_PLACES = frozenset({"--data", "--out"})


@dataclass(frozen=True)
class Source:
    """A data set as the runs read it."""

    name: str
    digest: str
    file: Path
    z_um: tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """One run: a solver on a data set with a seed.

    ``title`` names the solver, and data set and seed where there are several; ``folder`` is the run's own, beneath the
    comparison's; ``words`` are the run's options.
    """

    spec: Spec
    source: Source
    seed: int
    repeat: int
    title: str
    folder: str
    words: tuple[str, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the record that says which run it is."""
        return {
            "label": self.spec.label,
            "title": self.title,
            "data": {"name": self.source.name, "digest": self.source.digest},
            "seed": self.seed,
            "repeat": self.repeat,
            "folder": self.folder,
        }


@dataclass(frozen=True)
class Limits:
    """What one run may take: seconds of wall time, bytes of resident memory."""

    timeout_s: float | None = None
    memory_bytes: float | None = None


def plan(
    specs: Sequence[Spec], sources: Sequence[Source], seeds: Sequence[int], repeats: int, common: Sequence[str]
) -> list[Case]:
    """All runs, repeats interleaved (A B A B), so that a machine that slows down does not slow down only the last."""
    return [
        _case(spec, source, seed, repeat, common, len(sources) > 1, len(seeds) > 1)
        for repeat in range(repeats)
        for source in sources
        for seed in seeds
        for spec in specs
    ]


def _case(
    spec: Spec, source: Source, seed: int, repeat: int, common: Sequence[str], several_data: bool, several_seeds: bool
) -> Case:
    title, folder = [spec.label], [spec.folder]
    if several_data:
        title.append(source.name)
        folder.append(slug(source.name))
    if several_seeds:
        title.append(f"seed {seed}")
        folder.append(f"seed{seed}")
    if repeat:
        folder.append(f"run{repeat + 1}")
    words = ["run", "--data", str(source.file), "--solver", spec.solver]
    for key, value in spec.options:
        words += ["-o", f"{key}={value}"]
    words += [f"--z={','.join(repr(float(z)) for z in source.z_um)}", "--seed", str(seed), *common]
    # A slug has no "+", so no two cases share a folder.
    return Case(spec, source, seed, repeat, " · ".join(title), "+".join(folder), tuple(words))


def run_all(
    cases: Sequence[Case], root: Path, limits: Limits, *, resume: bool, on_event: OnEvent
) -> list[dict[str, Any]]:
    """Run all cases, or with ``resume`` those without a result in ``root``; the record of each.

    A record is what ``run.json`` says, or for a failure ``status`` and ``reason``; a result is under
    ``reconstruction``.
    """
    records: list[dict[str, Any]] = []
    hopeless: dict[str, str] = {}
    interrupted = False
    for case in cases:
        found = _kept(case, root) if resume else None
        if found is None:
            reason = "interrupted before its turn" if interrupted else hopeless.get(case.title) or _unable(case)
            found = {"status": "skipped", "reason": reason} if reason else _run(case, root, limits, on_event)
        interrupted = interrupted or found["status"] == "interrupted"
        if found["status"] in HOPELESS:
            hopeless[case.title] = f"an earlier repeat ended as {found['status']}"
        records.append({**found, **case.identity, "data": {**found.get("data", {}), **case.identity["data"]}})
    return records


def _unable(case: Case) -> str:
    """Why a solver cannot do what is asked, by its own account; empty when it says nothing against it."""
    from fpmtools import registry

    try:
        can = registry.find(case.spec.solver).record.capabilities
    except FpmError:
        return ""  # its run says what is wrong
    if can and len(case.source.z_um) > 1 and not can & {"z-stack", "continuous-z"}:
        return f"solver {case.spec.solver!r} takes one plane, not {len(case.source.z_um)}; give one with --z"
    return ""


def _run(case: Case, root: Path, limits: Limits, on_event: OnEvent) -> dict[str, Any]:
    place = root / case.folder
    (place / RUN_FILE).unlink(missing_ok=True)  # an earlier comparison's must not pass for this one's
    error: dict[str, Any] = {}

    def on_line(line: str) -> None:
        event = _event(line)
        if event["event"] == "error":
            error.update(event)
        on_event(case.title, event)

    on_event(case.title, {"event": "start", "repeat": case.repeat})
    command = [sys.executable, "-m", "fpmtools", *case.words, "--out", str(place)]
    ending = watch(command, on_line, timeout_s=limits.timeout_s, memory_bytes=limits.memory_bytes)
    if ending.by == "itself" and ending.code in (0, EXIT_INTERRUPTED) and (place / RUN_FILE).is_file():
        try:
            found = _result(place)
        except Exception as broken:  # the class of a result is a plugin's and may do anything
            found = {"status": "failed", "reason": f"its result cannot be opened: {' '.join(str(broken).split())}"}
    else:
        status, reason = _failure(ending, error, limits)
        found = {"status": status, "reason": reason}
    on_event(case.title, {"event": "end", "status": found["status"], "reason": found["reason"]})
    return found


def _result(place: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((place / RUN_FILE).read_text(encoding="utf-8"))
    return {**record, "reason": _missed(record), "reconstruction": Reconstruction.load(place)}


def _event(line: str) -> dict[str, Any]:
    """A line of ``--progress json``, or any other line as it is."""
    try:
        event = json.loads(line) if line.startswith("{") else None
    except ValueError:
        event = None
    return event if isinstance(event, dict) and "event" in event else {"event": "line", "text": line}


def _failure(ending: Ending, error: Mapping[str, Any], limits: Limits) -> tuple[str, str]:
    if ending.by == "time limit":
        return "timed out", f"killed after {limits.timeout_s:g} s"
    if ending.by == "memory limit":
        return "out of memory", f"killed with more than {(limits.memory_bytes or 0) / 1e6:.0f} MB"
    if ending.code == EXIT_INTERRUPTED:
        return "interrupted", "interrupted before it had a result"
    if ending.code < 0:
        try:
            name = signal.Signals(-ending.code).name
        except ValueError:
            name = str(-ending.code)
        return "failed", f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    if error:
        return str(error.get("status", "failed")), str(error.get("message", ""))
    return "failed", ending.last_line.removeprefix("error: ") or f"ended with exit code {ending.code}"


def _kept(case: Case, root: Path) -> dict[str, Any] | None:
    """The record of an earlier run of the same case that has a result: the same measurements, and the same options."""
    try:
        found = _result(root / case.folder)
        same = found["data"]["digest"] == case.source.digest and _options(found["command"][1:]) == _options(case.words)
        return found if same and found["status"] in GOOD else None
    except Exception:  # whatever is wrong with it, it is not a result to keep
        return None


def _missed(record: Mapping[str, Any]) -> str:
    target = record.get("target")
    if not target or record.get("seconds_to_target") is not None:
        return ""
    return f"{', '.join(f'{name}={value:g}' for name, value in target.items())} not reached"


def _options(words: Sequence[str]) -> list[str]:
    """The words of a run's command without those that say where its files are."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in _PLACES:
            kept.append(word)
        skip = not skip and word in _PLACES
    return kept
