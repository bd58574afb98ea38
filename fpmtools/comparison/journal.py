"""What has been found out about a finished run, step by step, in a file that survives the death of who writes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpmtools.storage import finite

JOURNAL_FILE = "evidence.jsonl"


@dataclass(frozen=True)
class Found:
    """What a step gave: a JSON-ready ``value`` (None where it has no meaning here), or the ``reason`` why nothing."""

    value: Any = None
    reason: str = ""


class Journal:
    """One line when a step begins and one when it ends, at once, so that a crash shows where it happened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_FILE

    def begin(self, step: str) -> None:
        """Say what is done next."""
        self._append({"step": step})

    def end(self, step: str, found: Found) -> None:
        """Keep what it gave."""
        self._append({"step": step, **({"reason": found.reason} if found.reason else {"value": finite(found.value)})})

    def read(self) -> tuple[dict[str, Found], str]:
        """The steps that have ended, and the one that had begun last and has not (or an empty string)."""
        ended: dict[str, Found] = {}
        begun = ""
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                entry = _entry(line)
                if "value" in entry or "reason" in entry:
                    ended[entry["step"]] = Found(entry.get("value"), str(entry.get("reason", "")))
                    begun = ""
                elif entry:
                    begun = entry["step"]
        return ended, begun

    def keep_only_values(self) -> None:
        """Forget what failed, so that it is tried again."""
        ended, _ = self.read()
        self.path.unlink(missing_ok=True)
        for step, found in ended.items():
            if not found.reason:
                self.end(step, found)

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _entry(line: str) -> dict[str, Any]:
    """A line's content; empty for a line that was cut short."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), str) else {}
