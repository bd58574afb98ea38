"""FPM-INR: fit an implicit neural representation of the whole z-stack through the forward model.

Zhou, Feng et al., Optica 10, 1679 (2023), doi:10.1364/OPTICA.505283; written from the method, see docs/inr.md for each
deviation. The preset ``paper`` follows the published schedule step for step, the default is faster and better.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fpmtools import Adam, Grid, PlaneStack, Problem, Progress, Reconstruction, Solver, explained, option, put, take
from fpmtools_inr.network import ACTIVATIONS, ImplicitField, Layout
from fpmtools_inr.reconstruction import InrReconstruction, code
from fpmtools_inr.schedule import Schedule


@dataclass(frozen=True)
class Options:
    # The network
    features: int | None = option(
        None, "Q: features per pixel of the plane M and per z node; none: 64 in 3-D, 16 in 2-D", minimum=1
    )
    plane: float | None = option(
        None, "pixels of M per object pixel along each axis; none: 1, or with grid=camera as published", minimum=0.01,
        maximum=2,
    )  # fmt: skip
    z_nodes: int | None = option(
        None, "z nodes of u, interpolated between; none: one for every two recovered depths of field", minimum=1
    )
    hidden: int | None = option(None, "width of the two hidden layers; none: 32 in 3-D, 16 in 2-D", minimum=1)
    joint: bool = option(True, "one network for amplitude and phase, instead of one each")
    layer_norm: bool = option(False, "layer norm after each hidden layer")
    activation: str = option("silu", "what follows each hidden layer", choices=tuple(ACTIVATIONS))
    plane_scale: float = option(2e-4, "standard deviation of M before training", minimum=0)
    # The fit
    schedule: str = option(
        "one-cycle",
        "one-cycle: `steps` steps at z spread evenly, lr rising and falling; epochs: planes uniform and random in "
        "turn, lr decaying in steps, LEDs in order of NA",
        choices=("one-cycle", "epochs"),
    )
    steps: int | None = option(
        None, "steps of the one-cycle schedule; none: 600, and up to 1800 where little is left "
        "unexplained (weights=explained)",
        minimum=1,
    )  # fmt: skip
    epochs: int = option(15, "epochs of the epochs schedule", minimum=1)
    lr: float = option(0.003, "Adam's (highest) step size", minimum=1e-6, maximum=1)
    plane_lr: float | None = option(
        None, "Adam's step size of M as a multiple of lr; none: 5 in 3-D, 20 in 2-D", minimum=0.01, maximum=1000
    )
    lr_decay_epochs: int = option(6, "epochs between decays of lr (epochs schedule)", minimum=1)
    lr_decay: float = option(0.1, "factor of each decay (epochs schedule)", minimum=1e-3, maximum=1)
    led_batch: int = option(12, "LEDs per step", minimum=1)
    weights: str = option(explained.EXPLAINED, "what an image counts by", choices=explained.CHOICES)
    coarse_to_fine: bool = option(False, "render on 1/4, 1/2, then all of the object grid, a third of the steps each")
    # The machinery
    grid: str = option(
        "critical",
        "critical: smallest grids that lose nothing; camera: raw pixels, as published",
        choices=("critical", "camera"),
    )
    band_limit: bool = option(True, "render only what lies inside the synthetic aperture")
    stored_error: float = option(
        0.007,
        "rms error of the field (clear sample: 1) that storing it may cause; 0: all in float32",
        minimum=0,
        maximum=1,
    )
    mixed_precision: str = option(
        "auto", "run the network in bfloat16; auto: where the processor has it", choices=("auto", "on", "off")
    )
    compile: bool = option(False, "torch.compile the network (needs a C++ compiler on a CPU)")


PAPER = {
    "features": 32,
    "hidden": 32,
    "z_nodes": 5,
    "joint": False,
    "activation": "relu",
    "schedule": "epochs",
    "lr": 1e-3,
    "plane_lr": 1.0,
    "led_batch": 1,
    "weights": explained.EQUAL,
    "grid": "camera",
    "band_limit": False,
    "stored_error": 0.0,
    "mixed_precision": "on",
}


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware; elsewhere it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass
class State:
    problem: Problem
    network: ImplicitField
    evaluate: Any  # the network, or its compiled form
    adam: Adam
    schedule: Schedule
    weights: torch.Tensor
    bfloat16: bool
    count: int = 0


class FpmInr(Solver[State]):
    """``fpmtools run --solver inr``."""

    Options = Options
    handles = frozenset({"losses", "patterns", "masks"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": PAPER}

    def grid(self) -> Mapping[str, bool]:
        """The published method works on raw camera pixels."""
        return {"critical_grid": self.options.grid == "critical"}

    def start(self, problem: Problem) -> State:
        """Random features; nothing of the data is used yet."""
        options, forward = self.options, problem.forward
        network = ImplicitField(self._layout(problem)).to(forward.real_dtype)
        network.initialise(problem.generator(), options.plane_scale)
        network.to(forward.device)
        evaluate = torch.compile(network) if options.compile else network
        planes = [value for name, value in network.named_parameters() if name.endswith("plane")]
        others = [value for name, value in network.named_parameters() if not name.endswith("plane")]
        share = options.plane_lr or (5.0 if problem.z_range[1] > problem.z_range[0] else 20.0)
        adam = Adam([(planes, share), (others, 1.0)])
        look = explained.Look.of(problem) if options.weights == explained.EXPLAINED else None
        weights = torch.ones_like(problem.amplitudes[:, 0, 0]) if look is None else look.weights()
        schedule = Schedule.choose(options, problem, look)
        bfloat16 = (
            has_bfloat16(forward.device) if options.mixed_precision == "auto" else options.mixed_precision == "on"
        )
        return State(problem, network, evaluate, adam, schedule, weights, bfloat16 and forward.dtype == torch.complex64)

    def _layout(self, problem: Problem) -> Layout:
        options, forward = self.options, problem.forward
        low, high = problem.z_range
        volume = high > low
        # Samples with depth are explained less and less well towards the edge of the synthetic aperture.
        share = math.sqrt(2 * forward.optics.na / forward.optics.synthetic_na(forward.na))
        carried = min(1.0, share) if volume else 1.0
        if options.plane is not None:
            plane = [round(n * options.plane) for n in forward.object_shape]
        elif options.grid == "camera":
            # The published sizes: 512 for a raw image of 1024 in 3-D, as many as the raw image's in 2-D.
            plane = [n // 2 if volume else n for n in forward.image_shape]
        else:
            plane = [round(n * carried) for n in forward.object_shape]
        nodes = options.z_nodes
        if nodes is None:
            depth = forward.optics.recovered_depth_of_field_um(forward.na) / carried**2
            nodes = math.ceil((high - low) / (2 * depth)) + 1
        return Layout(
            (max(2, plane[0]), max(2, plane[1])),
            options.features or (64 if volume else 16),
            nodes if volume else 1,
            options.hidden or (32 if volume else 16),
            1 if options.joint else 2,
            options.layer_norm,
            options.activation,
        )

    def step(self, state: State) -> Progress:
        """One batch of LEDs at one depth."""
        problem, options = state.problem, self.options
        z_um, leds, lr = state.schedule.at(state.count)
        scale = state.schedule.coarseness(state.count) if options.coarse_to_fine else 1
        spectrum = self._spectrum(state, z_um, scale)
        found = problem.loss_and_gradient(spectrum.detach(), z_um, leds, weights=take(state.weights, leds))
        torch.autograd.backward(spectrum, found.gradient)
        state.adam.step(lr)
        state.count += 1
        done = state.count >= state.schedule.total
        return Progress(state.count, state.schedule.total, found.loss, done, error=found.error, what=problem.loss_name)

    def _spectrum(self, state: State, z_um: list[float], scale: int) -> torch.Tensor:
        """Centred object spectra [z, H, W] of the network, rendered ``scale`` times coarser and zero-padded."""
        forward = state.problem.forward
        low, high = state.problem.z_range
        z = put(z_um, forward.device, forward.real_dtype)
        z = (z - low) / (high - low) if high > low else torch.zeros_like(z)
        height, width = forward.object_shape
        shape = (math.ceil(height / scale), math.ceil(width / scale))
        with torch.autocast(forward.device.type, torch.bfloat16, enabled=state.bfloat16):
            amplitude, phase = state.evaluate(z, shape)
        amplitude, phase = amplitude.to(forward.real_dtype), phase.to(forward.real_dtype)
        spectrum = forward.spectrum(torch.polar(torch.ones_like(phase), phase) * amplitude)
        if scale > 1:
            y, x = height // 2 - shape[0] // 2, width // 2 - shape[1] // 2
            padding = (x, width - shape[1] - x, y, height - shape[0] - y)
            spectrum = torch.nn.functional.pad(spectrum, padding) * (height * width / (shape[0] * shape[1]))
        return spectrum

    def result(self, state: State) -> Reconstruction:
        """A copy of the network as it stands; in 2-D the plane that it draws, which says the same in fewer bytes."""
        problem, forward = state.problem, state.problem.forward
        grid = Grid(problem.output_shape, forward.extent_um, problem.z_range)
        support = forward.synthetic_support() if self.options.band_limit else None
        flat = problem.z_range[0] == problem.z_range[1] and self.options.grid == "critical"
        network = copy.deepcopy(state.network)
        coded = [] if flat or self.options.stored_error == 0 else code(network, self.options.stored_error)
        volume = InrReconstruction(network, forward.object_shape, support, grid, coded=coded)
        if not flat:
            return volume
        return PlaneStack(volume.native_field(problem.z_um[0])[None], problem.z_um, grid)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """Parameters, Adam's moments and the number of steps."""
        tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
        return {**tensors, **state.adam.dump(), "count": torch.tensor(state.count)}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        prefix = "network."
        state.network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        state.adam.restore(tensors)
        state.count = int(tensors["count"])
        return state
