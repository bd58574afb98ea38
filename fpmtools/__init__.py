"""fpmtools: Fourier ptychographic microscopy with interchangeable solvers, compared honestly.

``load`` or ``simulate`` a data set, ``inspect`` and ``calibrate`` it, ``reconstruct`` it, ``evaluate`` the
``Reconstruction``, ``compare`` solvers; ``solvers`` and ``options`` tell what there is. The other names are for authors
of solvers. Names are imported on first use, so that ``import fpmtools`` is cheap.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Idle threads that spin slow a busy machine, and themselves, down by an order of magnitude; read by torch at import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME = {
    "load": "fpmtools.formats",
    "simulate": "fpmtools.simulation",
    "simulate_slide": "fpmtools.slide",
    "reconstruct": "fpmtools.engine",
    "evaluate": "fpmtools.evaluation",
    "compare": "fpmtools.comparison",
    "inspect": "fpmtools.calibrate.inspection",
    "calibrate": "fpmtools.calibrate",
    "solvers": "fpmtools.registry.listing",
    "options": "fpmtools.registry.listing",
    "run": "fpmtools.runs.running",
    "resume": "fpmtools.runs.running",
    "RunSpec": "fpmtools.runs.spec",
    "Reconstruction": "fpmtools.reconstruction",
    "Comparison": "fpmtools.comparison",
    "Dataset": "fpmtools.dataset",
    "Inspection": "fpmtools.calibrate.inspection",
    "ForwardModel": "fpmtools.forward",
    "Adam": "fpmtools.adam",
    "Calibration": "fpmtools.calibration",
    "FpmError": "fpmtools.errors",
    "Grid": "fpmtools.reconstruction",
    "Images": "fpmtools.images",
    "KeptKernels": "fpmtools.forward",
    "LowRankStack": "fpmtools.low_rank",
    "ReaderRecord": "fpmtools.records",
    "Recording": "fpmtools.formats.recording",
    "Wanted": "fpmtools.formats.recording",
    "Volume": "fpmtools.formats.volume",
    "WriterRecord": "fpmtools.records",
    "export": "fpmtools.formats.writing",
    "Misfit": "fpmtools.forward",
    "Pupil": "fpmtools.pupil",
    "MetricRecord": "fpmtools.records",
    "Optics": "fpmtools.optics",
    "PlaneBlocks": "fpmtools.planes",
    "PlaneSolver": "fpmtools.planes",
    "PlaneState": "fpmtools.planes",
    "PlaneStack": "fpmtools.reconstruction",
    "Problem": "fpmtools.problem",
    "Progress": "fpmtools.solver",
    "Projection": "fpmtools.projection",
    "Solver": "fpmtools.solver",
    "SolverError": "fpmtools.errors",
    "SolverRecord": "fpmtools.records",
    "SpectralPrior": "fpmtools.spectral_prior",
    "Truth": "fpmtools.dataset",
    "coding": "fpmtools.coding",
    "explained": "fpmtools.explained",
    "hookimpl": "fpmtools.registry",
    "one_cycle": "fpmtools.adam",
    "open_result": "fpmtools.results",
    "option": "fpmtools.options",
    "put": "fpmtools.transfer",
    "quasi_newton": "fpmtools.quasi_newton",
    "take": "fpmtools.transfer",
    "to_deepinv": "fpmtools.physics",
}

__all__ = [
    "Adam",
    "Calibration",
    "Comparison",
    "Dataset",
    "ForwardModel",
    "FpmError",
    "Grid",
    "Images",
    "Inspection",
    "KeptKernels",
    "LowRankStack",
    "MetricRecord",
    "Misfit",
    "Optics",
    "PlaneBlocks",
    "PlaneSolver",
    "PlaneStack",
    "PlaneState",
    "Problem",
    "Progress",
    "Projection",
    "Pupil",
    "ReaderRecord",
    "Reconstruction",
    "Recording",
    "RunSpec",
    "Solver",
    "SolverError",
    "SolverRecord",
    "SpectralPrior",
    "Truth",
    "Volume",
    "Wanted",
    "WriterRecord",
    "__version__",
    "calibrate",
    "coding",
    "compare",
    "evaluate",
    "explained",
    "export",
    "hookimpl",
    "inspect",
    "load",
    "one_cycle",
    "open_result",
    "option",
    "options",
    "put",
    "quasi_newton",
    "reconstruct",
    "resume",
    "run",
    "simulate",
    "simulate_slide",
    "solvers",
    "take",
    "to_deepinv",
]

if TYPE_CHECKING:
    from fpmtools import coding, explained, quasi_newton
    from fpmtools.adam import Adam, one_cycle
    from fpmtools.calibrate import calibrate
    from fpmtools.calibrate.inspection import Inspection, inspect
    from fpmtools.calibration import Calibration
    from fpmtools.comparison import Comparison, compare
    from fpmtools.dataset import Dataset, Truth
    from fpmtools.engine import reconstruct
    from fpmtools.errors import FpmError, SolverError
    from fpmtools.evaluation import evaluate
    from fpmtools.formats import load
    from fpmtools.formats.recording import Recording, Wanted
    from fpmtools.formats.volume import Volume
    from fpmtools.formats.writing import export
    from fpmtools.forward import ForwardModel, KeptKernels, Misfit
    from fpmtools.images import Images
    from fpmtools.low_rank import LowRankStack
    from fpmtools.optics import Optics
    from fpmtools.options import option
    from fpmtools.planes import PlaneBlocks, PlaneSolver, PlaneState
    from fpmtools.problem import Problem
    from fpmtools.projection import Projection
    from fpmtools.pupil import Pupil
    from fpmtools.reconstruction import Grid, PlaneStack, Reconstruction
    from fpmtools.records import MetricRecord, ReaderRecord, SolverRecord, WriterRecord
    from fpmtools.registry import hookimpl
    from fpmtools.registry.listing import options, solvers
    from fpmtools.results import open_result
    from fpmtools.runs.running import resume, run
    from fpmtools.runs.spec import RunSpec
    from fpmtools.simulation import simulate
    from fpmtools.slide import simulate_slide
    from fpmtools.solver import Progress, Solver
    from fpmtools.spectral_prior import SpectralPrior
    from fpmtools.transfer import put, take


def _found(name: str) -> Any:
    """What is called ``name`` in the module that is its home, or that module itself."""
    module = importlib.import_module(_HOME[name])
    return getattr(module, name, module) if module.__name__ == f"fpmtools.{name}" else getattr(module, name)


class _FrontDoor(ModuleType):
    """``fpmtools.calibrate`` and ``fpmtools.options`` are functions, although two modules have these names as well.

    The import of a module sets it as an attribute of its package; here that is let pass.
    """

    calibrate = property(lambda self: _found("calibrate"), lambda self, module: None)
    options = property(lambda self: _found("options"), lambda self, module: None)


sys.modules[__name__].__class__ = _FrontDoor


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = globals()[name] = _found(name)
        return value
    raise AttributeError(f"module 'fpmtools' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
