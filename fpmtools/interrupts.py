"""What can end a solver's step besides the solver: signals from outside, and errors inside that are nobody else's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fpmtools.errors import FpmError, OutOfMemoryError, SolverError

TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass
class Caught:
    """Signals that have arrived: Ctrl-C, and the number of one that asks to leave."""

    interrupted: bool = False
    terminated: int | None = None


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Meanwhile ``handler(number, usual)`` takes the signals ``numbers``; ``usual`` is what took them before.

    Only the main thread gets any; one that is ignored (nohup) stays so.
    """
    usual: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        usual = {number: signal.getsignal(number) for number in numbers}
        usual = {number: before for number, before in usual.items() if before not in (signal.SIG_IGN, None)}
    try:
        for number in usual:
            signal.signal(number, lambda number, frame: handler(number, usual[number]))
        yield
    finally:
        for number, before in usual.items():
            signal.signal(number, before)


@contextmanager
def signals(*, terminable: bool) -> Iterator[Caught]:
    """Ctrl-C, and with ``terminable`` SIGTERM and SIGHUP, are remembered instead of unwinding what is under way.

    The second one of a kind acts as before.
    """
    caught = Caught()

    def remember(number: int, usual: Any) -> None:
        if number == signal.SIGINT:
            caught.interrupted = True
        else:
            caught.terminated = number
        signal.signal(number, usual)

    with handled((signal.SIGINT, *(TERMINATING if terminable else ())), remember):
        yield caught


@contextmanager
def ended_by(clear: Callable[[], object]) -> Iterator[None]:
    """Where SIGTERM or SIGHUP would end the process at once, ``clear()`` is called before it does.

    Whoever takes them already goes on doing so.
    """

    def leave(number: int, usual: Any) -> None:
        if usual is signal.SIG_DFL:
            clear()
        signal.signal(number, usual)
        signal.raise_signal(number)

    with handled(TERMINATING, leave):
        yield


@contextmanager
def postponed() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait until what is under way is whole."""
    arrived: list[int] = []
    try:
        with handled((signal.SIGINT, *TERMINATING), lambda number, usual: arrived.append(number)):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


class Guard:
    """Turns whatever goes wrong inside a solver into one clear line; it may exit, or interrupt itself."""

    def __init__(self, solver: object, caught: Caught) -> None:
        self._name = type(solver).__name__
        self._caught = caught

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, FpmError):
            return
        if isinstance(error, KeyboardInterrupt) and self._caught.interrupted:
            return
        text = " ".join(str(error).split()) or "no message"
        if isinstance(error, MemoryError) or any(w in text.lower() for w in ("not enough memory", "out of memory")):
            raise OutOfMemoryError(
                f"{self._name} ran out of memory; use a smaller region of interest, fewer planes, or smaller batches"
            ) from error
        raise SolverError(f"{self._name} failed: {type(error).__name__}: {text}") from error
