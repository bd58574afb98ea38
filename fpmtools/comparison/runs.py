"""The runs of a comparison: each ``python -m fpmtools run`` in a process of its own, and the record it leaves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fpmtools.comparison.journal import Found, Journal
from fpmtools.comparison.spec import Spec, slug
from fpmtools.comparison.steps import MEASURING
from fpmtools.comparison.tracking import LOOKING
from fpmtools.processes import Ending, Patience, parse_event, watch
from fpmtools.reconstruction import RESULT_FILE

RUN_FILE = "run.json"
GOOD = frozenset({"done", "reached", "stopped"})
INTERRUPTED = "interrupted"  # a status; as "gathering" of a record: Ctrl-C came when it had been solved
HOPELESS = frozenset({"timed out", "out of memory"})  # another repeat would cost as much and end the same way
OnEvent = Callable[[str, Mapping[str, Any]], None]
NO_TRACKING = "--no-tracking"
SILENT_S = 600.0  # what one step of measuring a run may take, or --timeout where that is given
_ASIDE = frozenset({"--data", "--out", "--step"})  # what says nothing about how a run was solved


@dataclass(frozen=True)
class Source:
    """A data set as the runs read it; ``truth`` is the truth's digest, which the numbers of a run depend on."""

    name: str
    digest: str
    file: Path
    z_um: tuple[float, ...]
    truth: str | None = None


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

    def of_part(self, name: str, part: Source) -> Case:
        """The same on part of the LEDs, in a folder ``name`` in its own, without looking at quality on the way."""
        words = [str(part.file) if word == str(self.source.file) else word for word in self.words]
        words += [] if NO_TRACKING in words else [NO_TRACKING]
        return replace(self, source=part, folder=f"{self.folder}/{name}", words=tuple(words))


@dataclass(frozen=True)
class Limits:
    """What one run may take: seconds of wall time, bytes of resident memory."""

    timeout_s: float | None = None
    memory_bytes: float | None = None

    @property
    def step_s(self) -> float:
        """What a step of measuring a run may take."""
        return self.timeout_s or SILENT_S

    def exceeded(self, ending: Ending, seconds: float | None) -> str:
        """Which of them ended a program, where ``seconds`` was its time; empty where neither did."""
        if ending.by == "memory limit":
            return f"killed with more than {(self.memory_bytes or 0) / 1e6:.0f} MB"
        return f"killed after {seconds:g} s" if ending.by == "time limit" else ""


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
    cases: Sequence[Case],
    root: Path,
    limits: Limits,
    steps: Mapping[str, Sequence[str]],
    *,
    resume: bool,
    on_event: OnEvent,
) -> list[dict[str, Any]]:
    """Run all cases, or with ``resume`` those without a result in ``root``; the record of each.

    A record is what ``run.json`` says, or for a failure ``status`` and ``reason``. ``steps`` are those that are taken
    on the runs of each data set when they have ended (:mod:`fpmtools.comparison.steps`).
    """
    records: list[dict[str, Any]] = []
    hopeless: dict[str, str] = {}
    interrupted = False
    for case in cases:
        found = kept(case, root) if resume else None
        if found is None:
            reason = "interrupted before its turn" if interrupted else hopeless.get(case.title) or _unable(case)
            found = (
                {"status": "skipped", "reason": reason}
                if reason
                else run(case, root, limits, on_event, steps[case.source.name])
            )
        interrupted = interrupted or INTERRUPTED in (found["status"], found.get("gathering"))
        if found["status"] in HOPELESS:
            hopeless[case.title] = f"an earlier repeat ended as {found['status']}"
        records.append({**found, **case.identity, "data": {**found.get("data", {}), **case.identity["data"]}})
    return records


def _unable(case: Case) -> str:
    """Why a solver cannot do what is asked, by its own account; empty when it says nothing against it."""
    can = case.spec.capabilities
    if can and len(case.source.z_um) > 1 and not can & {"z-stack", "continuous-z"}:
        return f"solver {case.spec.solver!r} takes one plane, not {len(case.source.z_um)}; give one with --z"
    return ""


def run(case: Case, root: Path, limits: Limits, on_event: OnEvent, steps: Sequence[str] = ()) -> dict[str, Any]:
    """Run a case to its end, or to its limits; what ``run.json`` says, or ``status`` and ``reason`` of a failure.

    Its process goes on to take ``steps``; what happens there does not change the record. A result that takes the
    process down when it is looked at on the way is solved again without.
    """
    on_event(case.title, {"event": "start", "repeat": case.repeat})
    found, looking = _attempt(case, root, limits, on_event, steps)
    if looking and NO_TRACKING not in case.words and "--target" not in case.words:
        untracked, how = replace(case, words=(*case.words, NO_TRACKING)), found["reason"]
        found, _ = _attempt(untracked, root, limits, on_event, steps)
        found["untracked"] = f"{how} when its quality was looked at on the way; solved again without"
    on_event(case.title, {"event": "end", "status": found["status"], "reason": found["reason"]})
    return found


def _attempt(
    case: Case, root: Path, limits: Limits, on_event: OnEvent, steps: Sequence[str]
) -> tuple[dict[str, Any], bool]:
    """The record, and whether it was killed while its quality was looked at."""
    place = root / case.folder
    journal, patience = Journal(place), Patience(limits.timeout_s)
    for older in (place / RUN_FILE, journal.path):
        older.unlink(missing_ok=True)  # an earlier comparison's must not pass for this one's
    said: dict[str, dict[str, Any]] = {}
    last = ""

    def on_line(line: str) -> None:
        nonlocal last
        event = parse_event(line)
        last = event["event"] if event["event"] != "line" else last
        said[event["event"]] = event
        patience.silent_s = limits.step_s if last in (LOOKING, MEASURING) else None
        if last == MEASURING:  # the solve is over, and its limit does not count any more
            patience.total_s = None
        on_event(case.title, event)

    words = [word for step in steps for word in ("--step", step)]
    command = [sys.executable, "-m", "fpmtools", *case.words, *words, "--out", str(place)]
    ending = watch(command, on_line, patience, limits.memory_bytes)
    ended, begun = (place / RUN_FILE).is_file(), journal.read()[1]
    record = _record(place) if ended else _failure(ending, said.get("error", {}), limits)
    if ending.interrupted:
        return record | ({"gathering": INTERRUPTED} if begun or record["status"] != INTERRUPTED else {}), False
    if not ended:
        return record, last == LOOKING and ending.code < 0
    if begun:
        journal.end(begun, Found(reason=died_of(ending, limits)))
    if record["status"] == INTERRUPTED:  # by itself, not by Ctrl-C
        record |= {"status": "failed", "reason": "it interrupted itself"}
    return record, False


def died_of(ending: Ending, limits: Limits) -> str:
    """Why a process that took steps ended before it should have."""
    return (
        limits.exceeded(ending, limits.step_s)
        or ending.killed_by
        or ending.last_words
        or f"ended with exit code {ending.code}"
    )


def _record(place: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((place / RUN_FILE).read_text(encoding="utf-8"))
    return {**record, "reason": _missed(record)}


def _failure(ending: Ending, error: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """The record of a run without a result."""
    status, reason = "failed", ending.last_words or f"ended with exit code {ending.code} without a result"
    if why := limits.exceeded(ending, limits.timeout_s):
        status, reason = "timed out" if ending.by == "time limit" else "out of memory", why
    elif ending.interrupted:
        status, reason = INTERRUPTED, "interrupted before it had a result"
    elif ending.killed_by:
        reason = ending.killed_by
    elif error:
        status, reason = str(error.get("status", "failed")), str(error.get("message", ""))
    return {"status": status, "reason": reason}


def kept(case: Case, root: Path) -> dict[str, Any] | None:
    """The record of an earlier run of the same case that has a result: the same data and truth, the same options."""
    try:
        found, source = _record(root / case.folder), case.source
        same = (found["data"]["digest"], found["data"].get("truth", source.truth)) == (source.digest, source.truth)
        same = same and _options(found["command"][1:]) == _options(case.words)
        if not same or found["status"] not in GOOD or not (root / case.folder / RESULT_FILE).is_file():
            return None
        Journal(root / case.folder).keep_only_values()  # what failed is tried again
        return found
    except Exception:  # whatever is wrong with it, it is not a result to keep
        return None


def _missed(record: Mapping[str, Any]) -> str:
    target = record.get("target")
    if not target or record.get("seconds_to_target") is not None:
        return ""
    return f"{', '.join(f'{name}={value:g}' for name, value in target.items())} not reached"


def _options(words: Sequence[str]) -> list[str]:
    """The words of a run's command without those that say where its files are, or that it was not looked at."""
    words, skip = [word for word in words if word != NO_TRACKING], False
    decisive = []
    for word in words:
        if not skip and word not in _ASIDE:
            decisive.append(word)
        skip = not skip and word in _ASIDE
    return decisive
