"""Runs one trial in processes of its own, watched, as many as it takes; the record that it leaves.

A solver, a result or a metric that crashes, hangs or raises costs what it was asked for, and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fpmtools.comparison.pace import Pace
from fpmtools.comparison.trials import Trial
from fpmtools.errors import FpmError
from fpmtools.processes import Ending, Patience, parse_event, watch
from fpmtools.runs import tasks
from fpmtools.runs.document import missed_targets, with_evidence
from fpmtools.runs.folder import FINISHED, INTERRUPTED, RUN_FILE, RUNNING, RunFolder
from fpmtools.runs.journal import Found, Journal
from fpmtools.runs.log import LOG
from fpmtools.runs.running import finish
from fpmtools.runs.spec import RunSpec, read_json
from fpmtools.runs.tasks import MEASURING
from fpmtools.runs.tracking import LOOKING

OnEvent = Callable[[str, dict[str, Any]], object]
SILENT_S = 600.0  # what one task of measuring may take, or the timeout where that is given


@dataclass(frozen=True)
class Allowance:
    """What one run may take: seconds of wall time, bytes of resident memory."""

    timeout_s: float | None = None
    memory_bytes: float | None = None

    @property
    def step_s(self) -> float:
        """What one task of measuring may take."""
        return self.timeout_s or SILENT_S

    def exceeded(self, ending: Ending, seconds: float | None) -> str:
        """Which of them ended a program, where ``seconds`` was its time; empty where neither did."""
        if ending.by == "memory limit":
            return f"killed with more than {(self.memory_bytes or 0) / 1e6:.0f} MB"
        return f"killed after {seconds:g} s" if ending.by == "time limit" else ""


@dataclass(frozen=True)
class Driver:
    """Drives trials in the comparison's folder ``root``; ``resume``: from whatever is there of the same run."""

    root: Path
    allowance: Allowance
    on_event: OnEvent
    resume: bool = False
    phase: str = ""
    pace: Pace = field(default_factory=lambda: Pace(()))

    def drive(self, trial: Trial) -> dict[str, Any]:
        """Run a trial to its end, or to its limits: what its ``run.json`` says, or ``status`` and ``reason``.

        ``signal`` in it is the one that reached the comparison meanwhile, which ended the run early, or what comes
        after the solve.
        """
        self.pace.next()
        kept = self._kept(trial) if self.resume else None
        if kept is None:
            with self._created(trial):
                pass
        elif kept["status"] in FINISHED and not self._todo(trial):
            return kept
        self.pace.begin()
        self._tell(trial, {"event": "start", "repeat": trial.repeat})
        found, looking = self._solved(trial)
        if looking and trial.spec.outputs.track and not trial.spec.limits.targets:
            untracked = replace(trial, spec=replace(trial.spec, outputs=replace(trial.spec.outputs, track=False)))
            with self._created(untracked) as place:
                how = f"{found['reason']} when its quality was looked at on the way; solved again without"
                place.update(untracked=how)
            found, _ = self._solved(untracked)
        self.pace.end()
        self._tell(trial, {"event": "end", "status": found["status"], "reason": found["reason"]})
        return found

    def measure(self, trial: Trial) -> dict[str, Any]:
        """Take what is still to be taken of a trial's measures, once it is solved; the record."""
        if not self._todo(trial):
            return self.look(trial)
        with self._reopened(trial) as place:
            place.update(status=RUNNING)
        driver = replace(self, phase=MEASURING)
        driver._tell(trial, {"event": "start", "repeat": trial.repeat})
        found, _ = driver._solved(trial)
        return found

    def look(self, trial: Trial) -> dict[str, Any]:
        """The record of a trial as it stands; what was solved and not measured counts as it was solved."""
        document = read_json(self.root / trial.folder / RUN_FILE)
        found = self._journal(trial).read().ended
        if document["status"] == RUNNING:
            document = with_evidence({**document, "status": document["solved"]}, found)
        reason = missed_targets(document)
        if tasks.RESULT in found and (why := found[tasks.RESULT].reason):
            document |= {"status": "failed", "missing": {}}
            reason = f"its result cannot be opened: {why}"
        return {**document, "reason": reason}

    def _solved(self, trial: Trial) -> tuple[dict[str, Any], bool]:
        """The record, and whether it was killed while its quality was looked at."""
        while True:
            ending, last, error = self._attempt(trial)
            document = read_json(self.root / trial.folder / RUN_FILE)
            solved, status = document.get("solved"), document["status"]
            if ending.signal:
                name = signal.Signals(ending.signal).name
                if not solved:
                    early = "interrupted before it had a result"
                    reason = early if name == "SIGINT" else f"ended by {name}; it can be resumed"
                    return {"status": INTERRUPTED, "reason": reason, "signal": name}, False
                return {**self.look(trial), "signal": name}, False
            if not solved:
                return self._failure(ending, error), last == LOOKING and ending.code < 0
            if status == INTERRUPTED:  # by itself, not by Ctrl-C
                return {**self.look(trial), "status": "failed", "reason": "it interrupted itself"}, False
            if status != RUNNING:
                return self.look(trial), False
            self._blame(trial, self._died_of(ending, error))
            if not self._todo(trial):
                with self._reopened(trial) as place:
                    finish(place)
                return self.look(trial), False

    def _attempt(self, trial: Trial) -> tuple[Ending, str, Mapping[str, Any]]:
        """One process: how it ended, its last event, and the error it told of."""
        file = self.root / trial.folder / RUN_FILE
        measuring = bool(read_json(file).get("solved"))
        patience = Patience(None, self.allowance.step_s) if measuring else Patience(self.allowance.timeout_s)
        error: dict[str, Any] = {}
        last = ""

        def on_line(line: str) -> None:
            nonlocal last, error
            event = parse_event(line)
            last = event["event"] if event["event"] not in ("line", LOG) else last
            error = event if event["event"] == "error" else error
            patience.silent_s = self.allowance.step_s if last in (LOOKING, MEASURING) or measuring else None
            if last == MEASURING:  # the solve is over, and its limit does not count any more
                patience.total_s = None
            self._tell(trial, event)

        command = [sys.executable, "-m", "fpmtools.runs.worker", str(file), str(os.getpid())]
        return watch(command, on_line, patience, self.allowance.memory_bytes), last, error

    def _failure(self, ending: Ending, error: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a run without a result."""
        status, reason = "failed", ending.last_words or f"ended with exit code {ending.code} without a result"
        if why := self.allowance.exceeded(ending, self.allowance.timeout_s):
            status, reason = "timed out" if ending.by == "time limit" else "out of memory", why
        elif ending.killed_by:
            reason = ending.killed_by
        elif error:
            status, reason = str(error.get("status", "failed")), str(error.get("message", ""))
        return {"status": status, "reason": reason}

    def _died_of(self, ending: Ending, error: Mapping[str, Any]) -> str:
        """Why a process that measured ended before it should have."""
        words = str(error.get("message", "")) or ending.last_words or f"ended with exit code {ending.code}"
        return self.allowance.exceeded(ending, self.allowance.step_s) or ending.killed_by or words

    def _blame(self, trial: Trial, reason: str) -> None:
        """Say why of the task that a process died at; who dies before the first would die again in all."""
        journal = self._journal(trial)
        begun = journal.read().under_way
        for culprit in [begun] if begun else self._todo(trial):
            journal.end(culprit, Found(reason=reason))

    def _kept(self, trial: Trial) -> dict[str, Any] | None:
        """What there is of the same run: the same data and truth, the same options; None where there is nothing."""
        try:
            with RunFolder.reopen(self.root / trial.folder) as place:
                source, document = trial.source, place.document
                if RunSpec.from_dict(document["spec"]).digest != trial.spec.digest:
                    return None
                if document.get("data", {}).get("truth", source.truth) != source.truth:
                    return None
                if place.document.get("solved") and not place.solved()[0]:
                    return None
                if document["spec"] != trial.spec.to_dict():
                    place.update(spec=trial.spec.to_dict())  # the data may have moved, and more may be asked for
                place.journal.keep_only_values()  # what failed is tried again
                return self.look(trial) if document.get("solved") else {"status": document["status"]}
        except (FpmError, KeyError, TypeError, AttributeError):  # whatever is wrong with it, it is nothing to keep
            return None

    def _created(self, trial: Trial) -> RunFolder:
        return RunFolder.create(self.root / trial.folder, trial.spec, force=True)

    def _reopened(self, trial: Trial) -> RunFolder:
        place = RunFolder.reopen(self.root / trial.folder)
        place.document["spec"] = trial.spec.to_dict()
        return place

    def _todo(self, trial: Trial) -> list[str]:
        wanted = tasks.planned(trial.spec.outputs, truth=trial.source.truth is not None)
        return tasks.todo(self.root / trial.folder, self._journal(trial), wanted)

    def _journal(self, trial: Trial) -> Journal:
        return Journal(self.root / trial.folder)

    def _tell(self, trial: Trial, event: dict[str, Any]) -> None:
        phase = {"phase": self.phase} if self.phase else {}
        known = {} if self.phase == MEASURING else self.pace.about(event)
        self.on_event(trial.title, {**event, **phase, **known})
