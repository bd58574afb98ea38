"""What has been found out about a finished run, one by one, in a file that survives the death of who writes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpmtools.errors import OutputError

JOURNAL_FILE = "evidence.jsonl"


@dataclass(frozen=True)
class Found:
    """What a task gave: a JSON-ready ``value`` (None where it has no meaning here), or why nothing, the ``reason``."""

    value: Any = None
    reason: str = ""


@dataclass(frozen=True)
class Entries:
    """What a journal says: tasks that ended, the one that was begun last, how often each was in vain."""

    ended: dict[str, Found] = field(default_factory=dict)
    under_way: str = ""
    in_vain: dict[str, int] = field(default_factory=dict)


class Journal:
    """One line when a task begins and one when it has ended, so that a crash shows where it happened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_FILE

    def begin(self, task: str) -> None:
        """Say what is done next."""
        self._append({"task": task})

    def end(self, task: str, found: Found) -> None:
        """Keep what it gave."""
        self._append({"task": task, **({"reason": found.reason} if found.reason else {"value": found.value})})

    def put_off(self, task: str) -> None:
        """Say that it was given up for reasons that are not its own."""
        self._append({"task": task, "put_off": True})

    def read(self) -> Entries:
        """All that is in it."""
        entries, under_way = Entries(), ""
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                entry = _entry(line)
                if "value" in entry or "reason" in entry:
                    entries.ended[entry["task"]] = Found(entry.get("value"), str(entry.get("reason", "")))
                    entries.in_vain.pop(entry["task"], None)
                    under_way = ""
                elif "put_off" in entry:
                    entries.in_vain[entry["task"]] = max(entries.in_vain.get(entry["task"], 0) - 1, 0)
                    under_way = ""
                elif entry:
                    under_way = entry["task"]
                    entries.in_vain[under_way] = entries.in_vain.get(under_way, 0) + 1
        return Entries(entries.ended, under_way, {task: count for task, count in entries.in_vain.items() if count})

    def keep_only_values(self) -> None:
        """Forget what failed, so that it is tried again."""
        entries = self.read()
        if not entries.in_vain and not any(found.reason for found in entries.ended.values()):
            return
        self.path.unlink(missing_ok=True)
        for task, found in entries.ended.items():
            if not found.reason:
                self.end(task, found)

    def _append(self, entry: Mapping[str, Any]) -> None:
        from fpmtools.storage import finite

        try:
            with self.path.open("a+b") as file:
                file.seek(max(file.seek(0, 2) - 1, 0))
                torn = file.read(1) not in (b"\n", b"")
                file.write((b"\n" if torn else b"") + json.dumps(finite(entry)).encode() + b"\n")
        except OSError as error:
            raise OutputError.of(error, self.path) from error


def _entry(line: str) -> dict[str, Any]:
    """A line's content; empty for a line that was cut short."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) and isinstance(entry.get("task"), str) else {}
