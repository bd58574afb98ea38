"""The physical forward model."""

from fpmtools.forward.gradients import WRT, gradients
from fpmtools.forward.model import ForwardModel, Misfit, magnitude

__all__ = ["WRT", "ForwardModel", "Misfit", "gradients", "magnitude"]
