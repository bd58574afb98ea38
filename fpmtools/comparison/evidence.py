"""After the solves: the numbers, the further solves on part of the LEDs, and the pictures of every run.

All of it happens in processes of the run's own, so that a result or a metric that crashes, hangs or raises leaves its
own cells empty, with a reason, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fpmtools import metrics, registry
from fpmtools.comparison import runs, steps
from fpmtools.comparison.journal import Found, Journal
from fpmtools.comparison.runs import GOOD, INTERRUPTED, Case, Limits, OnEvent, Source
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.processes import Patience, parse_event, watch
from fpmtools.records import MetricRecord


@dataclass(frozen=True)
class Plan:
    """What is gathered of every run on one data set.

    ``parts`` are solves of some of the LEDs with what they read, ``steps`` what is done without them, and ``missing``
    says of metrics that should be there why they cannot be.
    """

    parts: Mapping[steps.Part, Source]
    steps: tuple[str, ...]
    missing: Mapping[str, str]


def installed_metrics() -> tuple[list[MetricRecord], str]:
    """The records of all metrics that can be used, and what is wrong with plugins that may have more."""
    return [supplied.record for supplied in registry.metrics()], "; ".join(map(str, registry.faults()))


def plan(
    dataset: Dataset,
    source: Source,
    known: Sequence[MetricRecord],
    *,
    held_out: bool | None,
    ring_correlation: bool,
    pictures: bool,
) -> tuple[Plan, dict[steps.Part, Dataset]]:
    """The plan for a data set with the metrics ``known``, and the parts of it to be saved where the plan says.

    ``held_out`` None is yes where there is no truth. Raises :class:`DataError` when there are too few LEDs for what is
    asked for.
    """
    truth, parts, missing = dataset.truth is not None, [], {}
    if held_out or (held_out is None and not truth):
        try:
            leds = set(metrics.held_out_leds(dataset))
            parts.append(steps.Part(steps.HELD_OUT, tuple(i for i in range(dataset.n_images) if i not in leds)))
        except DataError as error:
            if held_out:
                raise
            missing[steps.HELD_OUT_METRIC] = str(error)
    if ring_correlation:
        halves = metrics.interleaved_halves(dataset)
        parts += [steps.Part(name, tuple(leds)) for name, leds in zip(steps.HALVES, halves, strict=True)]
    wanted = [*steps.ESSENTIAL, *([steps.PICTURES] if pictures else [])]
    wanted += [steps.metric_step(record.name) for record in known if _cheap(record, truth)]
    wanted += [steps.RINGS_TRUTH] if truth else []
    wanted += [steps.FILES] if pictures else []
    chosen = {part: dataset.select(part.leds) for part in parts}
    files = {part: source.file.with_name(f"{source.file.stem}+{part.name}.safetensors") for part in parts}
    sources = {part: replace(source, digest=chosen[part].digest, file=files[part]) for part in parts}
    return Plan(sources, tuple(wanted), missing), chosen


def _cheap(record: MetricRecord, truth: bool) -> bool:
    return record.cost == "cheap" and (truth or not record.needs_truth)


def gather_all(
    cases: Sequence[Case],
    records: Sequence[Mapping[str, Any]],
    plans: Mapping[str, Plan],
    root: Path,
    limits: Limits,
    *,
    resume: bool,
    on_event: OnEvent,
) -> list[dict[str, Any]]:
    """The records with what was found out about each: ``metrics``, ``ring_correlation``, and ``missing`` with reasons.

    After Ctrl-C the runs that have a result are still measured, but nothing is solved again; a second one ends this
    too.
    """
    found = []
    interrupted = any(record["status"] == INTERRUPTED for record in records)
    stopped = any(record.get("gathering") == INTERRUPTED for record in records)
    for case, record in zip(cases, records, strict=True):
        if record["status"] not in (*GOOD, INTERRUPTED) or "times" not in record:
            found.append(dict(record))
            continue
        run = _Run(case, plans[case.source.name], root, limits, resume, on_event)
        parts = {} if interrupted or stopped or run.lost else run.solve_parts()
        stopped = stopped or INTERRUPTED in parts.values()
        outcome = run.measure(parts, only_look=stopped)
        if outcome is None:
            stopped, outcome = True, run.measure(parts, only_look=True)
        found.append(
            _merged(record, outcome or {}, run.missing(parts)) | ({"gathering": INTERRUPTED} if stopped else {})
        )
    return found


@dataclass(frozen=True)
class _Run:
    case: Case
    plan: Plan
    root: Path
    limits: Limits
    resume: bool
    on_event: OnEvent

    @property
    def lost(self) -> bool:
        """Whether its result cannot be opened or rendered, without which nothing else can be had."""
        found, _ = Journal(self.root / self.case.folder).read()
        return any(found[step].reason for step in steps.ESSENTIAL if step in found)

    def solve_parts(self) -> dict[str, str]:
        """Solve the parts that are planned; of each that has no result the reason, else an empty string."""
        ends: dict[str, str] = {}
        for part, source in self.plan.parts.items():
            case = self.case.of_part(part.name, source)
            record = runs.kept(case, self.root) if self.resume else None
            if record is None:
                record = runs.run(case, self.root, self.limits, self._in_phase(part.phase))
            good = record["status"] in GOOD
            ends[part.name] = "" if good else f"the solve {part.phase} {record['status']}: {record['reason']}"
            if INTERRUPTED in (record["status"], record.get("gathering")):
                ends[part.name] = INTERRUPTED
                break
        return ends

    def missing(self, parts: Mapping[str, str]) -> dict[str, str]:
        """Metrics that need a part which could not be solved, with the reason."""
        found = dict(self.plan.missing)
        for part in () if self.lost else self.plan.parts:
            name = steps.HELD_OUT_METRIC if part.name == steps.HELD_OUT else steps.HALVES_METRIC
            if why := parts.get(part.name, INTERRUPTED):
                found.setdefault(name, why)
        return found

    def measure(self, parts: Mapping[str, str], *, only_look: bool = False) -> dict[str, Found] | None:
        """What the steps gave; take those that are missing, in as many processes as it takes. None when interrupted.

        ``only_look``: take none.
        """
        place, wanted = self.root / self.case.folder, self._steps(parts)
        journal = Journal(place)
        found, _ = journal.read()
        for step in (steps.PICTURES, steps.FILES):
            if step in found and not all((place / name).is_file() for name in found[step].value or ()):
                del found[step]
        todo = [step for step in wanted if step not in found and not self.lost and not only_look]
        on_event = self._in_phase("measuring")
        if todo:
            on_event(self.case.title, {"event": "start", "repeat": self.case.repeat})
        while todo:
            reason = self._attempt(place, todo, on_event)
            if reason == INTERRUPTED:
                return None
            found, begun = journal.read()
            todo = [step for step in todo if step not in found and not self.lost]
            # Who dies before the first step would die again.
            for culprit in [begun] if begun else todo:
                journal.end(culprit, Found(reason=reason))
            found, _ = journal.read()
            todo = [step for step in todo if step not in found and not self.lost]
        return {step: found[step] for step in wanted if step in found}

    def _steps(self, parts: Mapping[str, str]) -> list[str]:
        wanted = list(self.plan.steps)
        if parts.get(steps.HELD_OUT) == "":
            wanted.append(steps.metric_step(steps.HELD_OUT_METRIC))
        if all(parts.get(half) == "" for half in steps.HALVES):
            wanted += [steps.metric_step(steps.HALVES_METRIC), steps.RINGS_HALVES]
        return wanted

    def _attempt(self, place: Path, todo: Sequence[str], on_event: OnEvent) -> str:
        """Take steps in one process; why it ended early, if it did."""
        words = [word for step in todo for word in ("--step", step)]
        command = [sys.executable, "-m", "fpmtools", "gather", str(place), "--data", str(self.case.source.file), *words]
        if "--threads" in self.case.words:
            command += ["--threads", self.case.words[self.case.words.index("--threads") + 1]]
        ending = watch(
            command,
            lambda line: on_event(self.case.title, parse_event(line)),
            Patience(silent_s=self.limits.step_s),
            self.limits.memory_bytes,
        )
        return INTERRUPTED if ending.interrupted else runs.died_of(ending, self.limits)

    def _in_phase(self, phase: str) -> OnEvent:
        return lambda title, event: self.on_event(title, {**event, "phase": phase})


def _merged(record: Mapping[str, Any], found: Mapping[str, Found], missing: Mapping[str, str]) -> dict[str, Any]:
    """The record of a run with what was found out about it."""
    merged = dict(record)
    numbers = {name: f.value for step, f in found.items() if (name := steps.metric_name(step)) and not f.reason}
    reasons = {steps.metric_name(step) or step: f.reason for step, f in found.items() if f.reason}
    if steps.RESULT in reasons:
        return {**merged, "status": "failed", "reason": f"its result cannot be opened: {reasons[steps.RESULT]}"}
    if steps.FIELD in reasons:
        reasons = {"metrics and pictures": f"its field cannot be rendered: {reasons[steps.FIELD]}"}
    merged["metrics"] = numbers
    rings = (found.get(step) for step in (steps.RINGS_HALVES, steps.RINGS_TRUTH))
    merged |= next(({"ring_correlation": f.value} for f in rings if f and not f.reason), {})
    points, seconds = merged.get("quality_over_time"), merged["times"]["solve_s"]
    if (
        points
        and points[-1]["seconds"] < 0.99 * seconds
        and all(isinstance(numbers.get(k), float) for k in ("psnr", "ssim"))
    ):
        merged["quality_over_time"] = [*points, {"seconds": seconds, "psnr": numbers["psnr"], "ssim": numbers["ssim"]}]
    if untracked := merged.pop("untracked", ""):
        reasons["quality over time"] = untracked
    merged["missing"] = {**missing, **reasons}
    return merged
