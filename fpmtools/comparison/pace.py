"""Which of how many solves of a comparison is under way, and how long all of them will still take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any


class Pace:
    """Counts solves as they begin; those to come are expected to take as long as those before did.

    Parameters
    ----------
    titles
        Of all solves, in their order. One of the same title is the best guide to another.
    """

    def __init__(self, titles: Iterable[str]) -> None:
        self.titles = list(titles)
        self.number = 0
        self._took = dict[str, list[float]]()
        self._begun: float | None = None

    def next(self) -> None:
        """The next solve has its turn; it may turn out that there is nothing to do."""
        self.number += 1
        self._begun = None

    def pass_over(self, count: int = 1) -> None:
        """So many solves are left out."""
        self.number += count

    def begin(self) -> None:
        """What has its turn is being solved."""
        self._begun = time.monotonic()

    def end(self) -> None:
        """It has come to its end."""
        if self._begun is not None:
            self._took.setdefault(self.titles[self.number - 1], []).append(time.monotonic() - self._begun)
            self._begun = None

    def about(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What an event is told with: ``number``, ``count``, of progress also ``all_remaining_s`` (None: unknown)."""
        known = {"number": self.number, "count": len(self.titles)}
        if event["event"] != "progress":
            return known
        return known | {"all_remaining_s": self._remaining_s(event.get("remaining_s"))}

    def _remaining_s(self, own_s: float | None) -> float | None:
        """Of the one under way and of all after it."""
        so_far = 0.0 if self._begun is None else time.monotonic() - self._begun
        every = [seconds for took in self._took.values() for seconds in took]
        usual = None if own_s is None else so_far + own_s
        usual = sum(every) / len(every) if every else usual
        if usual is None:
            return None
        if own_s is None:
            own_s = max(self._expected(self.titles[self.number - 1], usual) - so_far, 0.0)
        return own_s + sum(self._expected(title, usual) for title in self.titles[self.number :])

    def _expected(self, title: str, usual: float) -> float:
        took = self._took.get(title)
        return sum(took) / len(took) if took else usual
