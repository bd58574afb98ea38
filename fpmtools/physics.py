"""The forward model as a physics of deepinv, whose optimisers and denoisers then solve the same problem.

deepinv (Tachella et al., J. Open Source Softw. 10(115), 8923, 2025) is not needed by anything else here: ``pip install
'fpmtools[deepinv]'``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset, expect_dataset
from fpmtools.errors import OptionError
from fpmtools.forward import ForwardModel
from fpmtools.problem import prepare


def to_deepinv(
    dataset: Dataset,
    *,
    z_um: float | None = None,
    calibration: Calibration | None = None,
    device: str = "auto",
    dtype: str = "complex64",
    margin: int | str | None = None,
) -> tuple[Any, torch.Tensor]:
    """The data set, with the sample in one plane, as deepinv has it: y = A(x).

    Parameters
    ----------
    z_um
        Where, µm; may be left out where the data set says one plane.
    calibration
        The instrument; default: the data set's nominal one.
    device, dtype, margin
        As for :func:`fpmtools.reconstruct`.

    Returns
    -------
    physics
        A ``deepinv.physics.PhaseRetrieval``. ``A(x)`` [batch, image, h, w] are the intensities of complex object
        fields x [batch, 1, H, W], in units of the mean bright-field intensity: Σ w |B x|² + background, the sum over
        the LEDs that light an image; 0 where nothing was measured. ``B`` is linear, [batch, led, h, w], with its exact
        adjoint.
    measured
        y [1, image, h, w], the intensities.

    Raises
    ------
    OptionError
        deepinv is not there, or there are several planes and none is named.

    Examples
    --------
    Steps of gradient descent on deepinv's amplitude loss from an empty field::

        physics, y = fpmtools.to_deepinv(data, z_um=0.0)
        fidelity, x = deepinv.optim.data_fidelity.AmplitudeLoss(), physics.empty_field()
        step = 0.5 / physics.B.compute_sqnorm(x)
        for _ in range(20):
            x = x - step * fidelity.grad(x, y, physics)
    """
    expect_dataset(dataset, "to_deepinv: dataset")
    make = _classes()
    problem = prepare(dataset, calibration=calibration, z_um=z_um, device=device, dtype=dtype, margin=margin)
    if len(problem.z_um) > 1:
        raise OptionError(f"to_deepinv: the sample is at {len(problem.z_um)} planes; say which z_um")
    physics = make(problem.forward, problem.z_um[0])
    measured: torch.Tensor = physics.seen(problem.amplitudes.square()[None])
    return physics, measured


@cache
def _classes() -> Any:
    """The class, made when deepinv is there to be inherited from."""
    try:
        import deepinv.physics as base
    except ImportError as error:
        raise OptionError("to_deepinv needs deepinv: pip install 'fpmtools[deepinv]'") from error

    class Waves(base.LinearPhysics):  # type: ignore[misc]
        """B: object field → the complex low-resolution field under every LED."""

        def __init__(self, forward: ForwardModel, z_um: float) -> None:
            super().__init__(img_size=(1, *forward.object_shape), device=forward.device)
            self.forward_model, self.z_um = forward, z_um

        def A(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            return self.forward_model.low_field(x[:, 0], self.z_um)

        def A_adjoint(self, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            return self.forward_model.adjoint(y, self.z_um).unsqueeze(1)

    class FourierPtychography(base.PhaseRetrieval):  # type: ignore[misc]
        """A(x) = Σ_led w |B x|² + background."""

        def __init__(self, forward: ForwardModel, z_um: float) -> None:
            super().__init__(B=Waves(forward, z_um))
            self.name, self.forward_model = "Fourier ptychography", forward

        def A(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            light = self._summed(super().A(x, **kwargs))
            added = self.forward_model.added(range(self.forward_model.images))
            seen: torch.Tensor = self.seen(light if added is None else light + added)
            return seen

        def A_vjp(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            v, weights = self.seen(v), self._patterns()
            of_leds = v if weights is None else torch.einsum("il,bihw->blhw", weights, v)
            slope: torch.Tensor = super().A_vjp(x, of_leds)
            return slope

        def seen(self, light: torch.Tensor) -> torch.Tensor:
            """``light`` [batch, image, h, w] where the camera has measured, else 0."""
            seen = self.forward_model.seen()
            return light if seen is None else light * seen

        def A_dagger(self, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            return self.empty_field(len(y))

        def empty_field(self, batch: int = 1) -> torch.Tensor:
            """[batch, 1, H, W], 1 everywhere: a start."""
            forward = self.forward_model
            return torch.ones(batch, 1, *forward.object_shape, dtype=forward.dtype, device=forward.device)

        def _summed(self, light: torch.Tensor) -> torch.Tensor:
            weights = self._patterns()
            return light if weights is None else torch.einsum("il,blhw->bihw", weights, light)

        def _patterns(self) -> torch.Tensor | None:
            patterns, forward = self.forward_model.calibration.patterns, self.forward_model
            return None if patterns is None else torch.from_numpy(patterns).to(forward.device, forward.real_dtype)

    return FourierPtychography
