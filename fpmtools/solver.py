"""What a solver is: options, start, step, result. The host (engine.py) owns loop, clock, screen and files."""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch

from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError, unknown
from fpmtools.forward import ForwardModel
from fpmtools.optics import Shape, resize_spectrum, to_spectrum
from fpmtools.reconstruction import Reconstruction

State = TypeVar("State")


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A field of a solver's options dataclass; the command line, the documentation and the checks all come from it."""
    return dataclasses.field(
        default=default,
        metadata={"doc": doc, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices},
    )


@dataclass(frozen=True)
class Problem:
    """All that a solver is given. Everything is on ``forward.device`` and on the sampling plan's grids.

    ``amplitudes`` [led, y, x] real: square roots of the measured intensities, scaled so that the mean bright-field
    intensity is 1. The LEDs are those of ``forward.na``: the data set's, or, where its images show that
    the board stands elsewhere, moved by ``led_shift_na`` (x, y) and without those that do not agree even then.
    ``z_um``: the planes to reconstruct, ascending, at least one. ``z_range`` = (first, last): a solver with a
    continuous z covers all of it. ``output_shape`` (y, x): the size at which the result is shown by default.
    """

    dataset: Dataset
    forward: ForwardModel
    amplitudes: torch.Tensor
    z_um: tuple[float, ...]
    output_shape: Shape
    intensity_scale: float
    seed: int = 0
    led_shift_na: tuple[float, float] = (0.0, 0.0)

    @property
    def z_range(self) -> tuple[float, float]:
        """Lowest and highest z, µm."""
        return self.z_um[0], self.z_um[-1]

    @property
    def order(self) -> list[int]:
        """LED indices by ascending |NA|."""
        return cast(list[int], np.argsort(np.linalg.norm(self.forward.na, axis=1), kind="stable").tolist())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.forward.device

    def first_guess(self) -> torch.Tensor:
        """Centred object spectrum [H, W] of the image of the LED nearest to the axis, as an amplitude without phase.

        An image a hundred times darker than the brightest is passed over.

        What no LED's pupil covers is left at zero, since no measurement could ever change it.
        """
        power = self.amplitudes.square().mean((1, 2))
        lit = (power >= 0.01 * power.max()).cpu()
        amplitude = self.amplitudes[next(led for led in self.order if lit[led])].cpu().numpy()
        height, width = self.forward.object_shape
        spectrum = resize_spectrum(to_spectrum(amplitude), (height, width)) * (height * width / amplitude.size)
        spectrum = spectrum * self.forward.synthetic_support()
        return torch.from_numpy(spectrum).to(self.forward.dtype).to(self.device)

    def generator(self, step: int = 0) -> torch.Generator:
        """A fresh CPU generator for this run's seed and a step: the same numbers on every device, no state to keep."""
        # The CPU generator takes 32 bits only, so seed and step are mixed instead of set side by side.
        word = np.random.SeedSequence(self.seed, spawn_key=(step,)).generate_state(1, np.uint32)[0]
        return torch.Generator().manual_seed(int(word))

    def led_batch(self, step: int, size: int) -> list[int]:
        """LEDs of a step that takes ``size`` at a time: every sweep visits each LED once, in a new random order."""
        leds = len(self.amplitudes)
        sweep, batch = divmod(step, -(-leds // size))
        order = torch.randperm(leds, generator=self.generator(sweep))
        return cast(list[int], order[batch * size : (batch + 1) * size].tolist())

    def led_weights(self, power: float) -> torch.Tensor:
        """Weight (mean intensity)^-power of each LED's squared amplitude error, [led], scaled to a mean of 1.

        Photon noise is the same in all amplitudes, which asks for 0; more makes up for the dark field's small values.
        """
        weights = self.amplitudes.square().mean((1, 2)).clamp_min(1e-12).pow(-power)
        return weights / weights.mean()


@dataclass(frozen=True)
class Progress:
    """What one step reports. ``loss`` may stay a tensor on the device: the engine reads it only when it shows it."""

    step: int
    total: int
    loss: torch.Tensor | float
    done: bool = False


class Solver(ABC, Generic[State]):
    """Base class of all solvers.

    A subclass names its frozen ``Options`` dataclass, and optionally ``presets`` (name → option values), and
    implements :meth:`start`, :meth:`step` and :meth:`result`. For runs that can be resumed it also implements
    :meth:`dump` and :meth:`restore`.
    """

    Options: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def start(self, problem: Problem) -> State:
        """Allocate everything; nothing is timed as a step before this returns."""

    @abstractmethod
    def step(self, state: State) -> Progress:
        """Advance by a small piece of work (well under a second where possible) and say how far it is."""

    @abstractmethod
    def result(self, state: State) -> Reconstruction:
        """The reconstruction as it stands; may be called after any number of steps, also none."""

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """The state as named tensors, for a checkpoint."""
        raise OptionError(f"{type(self).__name__} cannot be checkpointed: it has no dump and restore")

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """The state that :meth:`dump` wrote; continuing from it gives the same result as never having stopped."""
        raise OptionError(f"{type(self).__name__} cannot be resumed: it has no dump and restore")

    def grid(self) -> Mapping[str, bool]:
        """What it asks of :func:`fpmtools.engine.prepare` (``critical_grid``, ``subpixel``); users can overrule it."""
        return {}

    @classmethod
    def resumable(cls) -> bool:
        """Whether the solver implements dump and restore."""
        return cls.dump is not Solver.dump and cls.restore is not Solver.restore


def make_options(solver: type[Solver[Any]], values: Mapping[str, Any], preset: str | None = None) -> Any:
    """Build and check a solver's options from ``key=value`` pairs (strings or typed), on top of a preset.

    A ``preset`` key in ``values`` is the same as the argument.

    Raises
    ------
    OptionError
        Unknown preset or option (with the nearest name), a value of the wrong kind, out of range, or no choice.
    """
    values = dict(values)
    preset = values.pop("preset", preset)
    chosen: dict[str, Any] = {}
    if preset is not None and preset != "default":
        if preset not in solver.presets:
            raise unknown("preset", str(preset), ["default", *solver.presets])
        chosen.update(solver.presets[preset])
    chosen.update(values)
    fields = {f.name: f for f in dataclasses.fields(solver.Options)}
    hints = typing.get_type_hints(solver.Options)
    checked = {}
    for name, value in chosen.items():
        if name not in fields:
            raise unknown("option", name, [*fields, *(["preset"] if solver.presets else [])])
        checked[name] = _check(name, value, hints[name], fields[name].metadata)
    return solver.Options(**checked)


def describe_options(solver: type[Solver[Any]]) -> list[dict[str, Any]]:
    """One JSON-ready row per option: name, type, default, unit, minimum, maximum, choices, doc."""
    hints = typing.get_type_hints(solver.Options)
    return [
        {"name": f.name, "type": _type_name(hints[f.name]), "default": f.default, **dict(f.metadata)}
        for f in dataclasses.fields(solver.Options)
    ]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _type_name(hint: Any) -> str:
    return " | ".join("none" if t is type(None) else t.__name__ for t in _alternatives(hint))


def _check(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    for kind in _alternatives(hint):
        try:
            value = _convert(value, kind)
            break
        except (TypeError, ValueError):
            continue
    else:
        raise OptionError(f"option {name}: {value!r} is not {_type_name(hint)}")
    choices, low, high = meta.get("choices"), meta.get("minimum"), meta.get("maximum")
    if choices is not None and value not in choices:
        raise unknown(f"value of option {name}:", str(value), map(str, choices))
    if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
        bounds = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        raise OptionError(f"option {name}: {value} is out of range; it must be {bounds}")
    return value


def _convert(value: Any, kind: Any) -> Any:
    text = value.strip().lower() if isinstance(value, str) else None
    if kind is type(None):
        if value is None or text == "none":
            return None
    elif kind is bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if text in {"true", "yes", "on", "1", "false", "no", "off", "0"}:
            return text in {"true", "yes", "on", "1"}
    elif kind is int:
        if text is not None:
            return int(text)
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return int(value)
    elif kind is float:
        if text is not None or (isinstance(value, int | float | np.number) and not isinstance(value, bool)):
            number = float(value)
            if np.isfinite(number):
                return number
    elif kind is str and isinstance(value, str):
        return value
    raise ValueError
