"""What is found out about the runs of a comparison: numbers, pictures, and solves of part of the LEDs.

All of it happens in processes of the run's own, so that a result or a metric that crashes, hangs or raises leaves its
own cells empty, with a reason, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fpmtools import metrics, registry
from fpmtools.comparison.driving import Driver
from fpmtools.comparison.trials import Source, Trial
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.records import MetricRecord
from fpmtools.runs import tasks
from fpmtools.runs.folder import FINISHED, INTERRUPTED
from fpmtools.runs.journal import Journal
from fpmtools.runs.spec import Outputs


@dataclass(frozen=True)
class Wanted:
    """What is found out about every run on one data set.

    ``outputs`` go without further solves; ``parts`` are solves of some of the LEDs with what they read, and ``missing``
    says of metrics that should be there why they cannot be.
    """

    outputs: Outputs
    parts: Mapping[tasks.Part, Source]
    missing: Mapping[str, str]


def installed_metrics() -> tuple[list[MetricRecord], str]:
    """The records of all metrics that can be used, and what is wrong with plugins that may have more."""
    return [supplied.record for supplied in registry.metrics()], "; ".join(map(str, registry.faults()))


def wanted(
    dataset: Dataset,
    source: Source,
    known: Sequence[MetricRecord],
    *,
    held_out: bool | None,
    ring_correlation: bool,
    pictures: bool,
) -> tuple[Wanted, dict[tasks.Part, Dataset]]:
    """What is wanted of a data set with the metrics ``known``, and the parts of it to be saved where that says.

    ``held_out`` None is yes where there is no truth. Raises :class:`DataError` when there are too few LEDs for what is
    asked for.
    """
    truth, parts, missing = dataset.truth is not None, [], {}
    if held_out or (held_out is None and not truth):
        try:
            leds = set(metrics.held_out_leds(dataset))
            parts.append(tasks.Part(tasks.HELD_OUT, tuple(i for i in range(dataset.n_images) if i not in leds)))
        except DataError as error:
            if held_out:
                raise
            missing[tasks.HELD_OUT_METRIC] = str(error)
    if ring_correlation:
        halves = metrics.interleaved_halves(dataset)
        parts += [tasks.Part(name, tuple(leds)) for name, leds in zip(tasks.HALVES, halves, strict=True)]
    measures = [record.name for record in known if record.cost == "cheap" and (truth or not record.needs_truth)]
    measures += [tasks.FIT, *([tasks.RINGS_TRUTH] if truth else [])]
    outputs = Outputs(measures=tuple(measures), pictures=("report", "files") if pictures else (), warm_up=True)
    chosen = {part: dataset.select(part.leds) for part in parts}
    files = {part: source.file.with_name(f"{source.file.stem}+{part.name}.safetensors") for part in parts}
    sources = {part: replace(source, digest=chosen[part].digest, file=files[part]) for part in parts}
    return Wanted(outputs, sources, missing), chosen


def gather(
    trials: Sequence[Trial], records: Sequence[Mapping[str, Any]], wanted: Mapping[Source, Wanted], driver: Driver
) -> list[dict[str, Any]]:
    """The records with what the parts of the data tell, and what has not been measured yet.

    After Ctrl-C the runs that have a result are still measured, but nothing is solved again; a second one, or another
    signal, ends this too.
    """
    found = []
    interrupted = any(record["status"] == INTERRUPTED for record in records)
    stopped = any("signal" in record and record["status"] != INTERRUPTED for record in records)
    stopped = stopped or any(record.get("signal", "SIGINT") != "SIGINT" for record in records)
    for trial, record in zip(trials, records, strict=True):
        if record["status"] not in (*FINISHED, INTERRUPTED) or "times" not in record:
            found.append(dict(record))
            driver.pace.pass_over(len(wanted[trial.source].parts))
            continue
        asked = wanted[trial.source]
        lost = _is_lost(Journal(driver.root / trial.folder))
        ends = {} if interrupted or stopped or lost else _solve_parts(trial, asked, driver)
        stopped = stopped or INTERRUPTED in ends.values()
        measured = driver.look(trial) if stopped else driver.measure(trial.measuring(*_measures(ends)))
        stopped = stopped or "signal" in measured
        missing = {} if lost else _missing(asked, ends)
        merged = {**record, **measured, "data": record["data"], "missing": {**missing, **measured.get("missing", {})}}
        found.append(merged | ({"signal": record.get("signal", "SIGINT")} if stopped else {}))
    return found


def _solve_parts(trial: Trial, asked: Wanted, driver: Driver) -> dict[str, str]:
    """Solve the parts that are planned; of each that has no result the reason, else an empty string."""
    ends: dict[str, str] = {}
    for part, source in asked.parts.items():
        record = replace(driver, phase=part.phase).drive(trial.of_part(part.name, source))
        good = record["status"] in FINISHED
        ends[part.name] = "" if good else f"the solve {part.phase} {record['status']}: {record['reason']}"
        if "signal" in record:
            ends[part.name] = INTERRUPTED
            break
    return ends


def _measures(ends: Mapping[str, str]) -> list[str]:
    """What can be measured once the parts have ended like this."""
    held_out = [tasks.HELD_OUT_METRIC] if ends.get(tasks.HELD_OUT) == "" else []
    halves = all(ends.get(half) == "" for half in tasks.HALVES)
    return held_out + ([tasks.HALVES_METRIC, tasks.RINGS_HALVES] if halves else [])


def _missing(asked: Wanted, ends: Mapping[str, str]) -> dict[str, str]:
    """Metrics that need a part which could not be solved, with the reason."""
    found = dict(asked.missing)
    for part in asked.parts:
        name = tasks.HELD_OUT_METRIC if part.name == tasks.HELD_OUT else tasks.HALVES_METRIC
        if why := ends.get(part.name, INTERRUPTED):
            found.setdefault(name, why)
    return found


def _is_lost(journal: Journal) -> bool:
    """Whether a result cannot be opened or rendered, without which nothing else can be had."""
    ended = journal.read().ended
    return any(ended[one].reason for one in tasks.ESSENTIAL if one in ended)
