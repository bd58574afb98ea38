"""The physical forward model."""

from fpmtools.forward.gradients import WRT, gradients
from fpmtools.forward.kept import KeptKernels
from fpmtools.forward.model import ForwardModel, Misfit, magnitude

__all__ = ["WRT", "ForwardModel", "KeptKernels", "Misfit", "gradients", "magnitude"]
