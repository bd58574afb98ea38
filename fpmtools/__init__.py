"""fpmtools: Fourier ptychographic microscopy with interchangeable solvers, compared honestly.

``load`` or ``simulate`` a data set, ``reconstruct`` it, ``compare`` solvers, and keep the ``Reconstruction``. The other
names are for authors of solvers. Names are imported on first use, so that ``import fpmtools`` is cheap.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Idle threads that spin slow a busy machine, and themselves, down by an order of magnitude; read by torch at import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME = {
    "load": "fpmtools.formats",
    "simulate": "fpmtools.simulation",
    "reconstruct": "fpmtools.engine",
    "compare": "fpmtools.comparison",
    "run": "fpmtools.runs.running",
    "resume": "fpmtools.runs.running",
    "RunSpec": "fpmtools.runs.spec",
    "Reconstruction": "fpmtools.reconstruction",
    "Dataset": "fpmtools.dataset",
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
    "take": "fpmtools.transfer",
}

__all__ = [
    "Adam",
    "Calibration",
    "Dataset",
    "ForwardModel",
    "FpmError",
    "Grid",
    "Images",
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
    "coding",
    "compare",
    "explained",
    "export",
    "hookimpl",
    "load",
    "one_cycle",
    "open_result",
    "option",
    "put",
    "reconstruct",
    "resume",
    "run",
    "simulate",
    "take",
]

if TYPE_CHECKING:
    from fpmtools import coding, explained
    from fpmtools.adam import Adam, one_cycle
    from fpmtools.calibration import Calibration
    from fpmtools.comparison import compare
    from fpmtools.dataset import Dataset, Truth
    from fpmtools.engine import reconstruct
    from fpmtools.errors import FpmError, SolverError
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
    from fpmtools.results import open_result
    from fpmtools.runs.running import resume, run
    from fpmtools.runs.spec import RunSpec
    from fpmtools.simulation import simulate
    from fpmtools.solver import Progress, Solver
    from fpmtools.spectral_prior import SpectralPrior
    from fpmtools.transfer import put, take


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module = importlib.import_module(_HOME[name])
        value = globals()[name] = module if module.__name__ == f"fpmtools.{name}" else getattr(module, name)
        return value
    raise AttributeError(f"module 'fpmtools' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
