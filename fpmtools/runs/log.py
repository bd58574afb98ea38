"""The log of a run, ``run.log`` in its folder: what was done when, a line each, for whoever wonders afterwards.

A line is written, and synced, as soon as there is something to say, so that nothing of it is lost whatever happens
next. A run that is resumed goes on in the same file. Nothing reads it, and no result depends on it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpmtools.errors import FpmError, OutputError, printable
from fpmtools.runs.folder import LOG_FILE

if TYPE_CHECKING:
    from fpmtools.calibration import Calibration
    from fpmtools.dataset import Dataset
    from fpmtools.runs.folder import RunFolder

OnEvent = Callable[[dict[str, Any]], object]

LOG = "log"  # the event: a line for those who want to know everything
PROGRESS_EVERY_S = 10.0
LONGEST = 2000  # characters of a line


class Lines:
    """Events as lines of text with the time; of progress one in ten seconds at most."""

    def __init__(self) -> None:
        self._next_s = dict[str, float]()

    def __call__(self, event: Mapping[str, Any]) -> str | None:
        """The line for an event, None where there is nothing to say."""
        words = self.words(event)
        return None if words is None else line_of(words)

    def words(self, event: Mapping[str, Any]) -> str | None:
        """The same without the time."""
        kind = event["event"]
        if kind in (LOG, "line"):
            return str(event["text"])
        if kind == "warning":
            return f"warning: {event['text']}"
        if kind == "measuring":
            return f"measuring: {event['task']}"
        if kind == "quality":
            return f"quality after {event['seconds']:.3g} s: PSNR {event['psnr']:.4g} dB, SSIM {event['ssim']:.4g}"
        if kind not in ("progress", "calibrating"):
            return None
        now, last = time.monotonic(), event["step"] >= event["total"]
        if now < self._next_s.get(kind, 0.0) and not last:
            return None
        self._next_s[kind] = now + PROGRESS_EVERY_S
        doing, bound = ("calibrating: " if kind == "calibrating" else ""), "at most " if event.get("at_most") else ""
        words = f"{doing}step {event['step']} of {bound}{event['total']}"
        if (loss := event.get("loss")) is not None:
            words += f", {event.get('what') or 'loss'} {loss:.6g}"
        return words + (f", {event['seconds']:.1f} s" if "seconds" in event else "")


@contextlib.contextmanager
def kept(place: RunFolder, on_event: OnEvent | None) -> Iterator[OnEvent]:
    """What tells events, with each line that there is to say of them kept in the run's ``run.log``.

    Each line also goes to ``on_event``, as a ``log`` event (text). The file is opened, and says that the run begins or
    goes on, with the first line: a run with nothing left to do is left as it is.
    """
    log = _Log(place, on_event or (lambda event: None))
    try:
        yield log.tell
    except FpmError as error:
        log.end(f"ended: {error}")
        raise
    except KeyboardInterrupt:
        log.end("ended by Ctrl-C")
        raise
    except BaseException as error:
        log.end(f"ended by an error: {type(error).__name__}: {error}")
        raise
    else:
        log.end(_ended(place.document))
    finally:
        log.close()


class _Log:
    def __init__(self, place: RunFolder, on_event: OnEvent) -> None:
        self._place, self._on_event, self._lines = place, on_event, Lines()
        self._file: int | None = None
        self._begun = False

    def tell(self, event: dict[str, Any]) -> None:
        words = self._lines.words(event)
        if words is not None:
            if not self._begun:
                self._begin()
            self._say(line_of(words))
        if event["event"] != LOG:
            self._on_event(event)

    def _begin(self) -> None:
        self._begun = True
        try:
            self._file = _opened(self._place.path / LOG_FILE)
        except OSError as error:
            self._give_up(error)
        for text in _heading(self._place):
            self.tell({"event": LOG, "text": text})

    def _say(self, line: str) -> None:
        self._on_event({"event": LOG, "text": line})
        if self._file is not None:
            try:
                os.write(self._file, f"{line}\n".encode("utf-8", "backslashreplace"))
                os.fsync(self._file)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A run is not ended by a log that cannot be written."""
        self.close()
        text = f"{OutputError.of(error, self._place.path / LOG_FILE)}; the run goes on without it"
        self._on_event({"event": LOG, "text": line_of(f"warning: {text}")})
        self._on_event({"event": "warning", "text": text})

    def end(self, text: str) -> None:
        """The last line, if there was a first."""
        if self._begun:
            self.tell({"event": LOG, "text": text})

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _opened(path: Path) -> int:
    """To add to; a link that somebody has put there is not followed."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)


def line_of(text: str) -> str:
    """With the time of now, fit to be shown."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return f"{now} {printable(text, LONGEST)}"


def _heading(place: RunFolder) -> Iterator[str]:
    spec, again = place.spec, "resolved" in place.document
    yield f"the run {'goes on' if again else 'begins'}: spec {spec.digest[:16]}, process {os.getpid()}"
    yield of_versions()
    options = ", ".join(f"{key}={value}" for key, value in spec.options.items())
    yield f"solver {spec.solver}{f' with {options}' if options else ''}, seed {spec.seed}"


def of_versions() -> str:
    """What the numbers come from, in a line."""
    from fpmtools.runs import environment

    return ", ".join(f"{name} {version}" for name, version in environment.versions().items())


def of_data(dataset: Dataset) -> str:
    """Which data they are, in a line."""
    size = " × ".join(map(str, dataset.image_shape))
    return f"data {dataset.name}: {dataset.n_images} images of {size} pixels, digest {dataset.digest[:16]}"


def of_calibration(found: Calibration) -> Iterator[str]:
    """What was found of the instrument, what was kept and why, a line each."""
    from fpmtools.calibrate.telling import told

    return (f"calibration: {line.strip()}" for line in told(found))


def _ended(document: Mapping[str, Any]) -> str:
    """How a run has ended, in a line."""
    words = f"ended: {document['status']}"
    if "steps" in document:
        words += f", {document['steps']} of {document['total_steps']} steps"
    if "times" in document:
        words += f", {document['times']['solve_s']:.2f} s of solving"
    numbers = [f"{name} {value:.5g}" for name, value in document.get("metrics", {}).items() if value is not None]
    return ", ".join([words, *numbers])
