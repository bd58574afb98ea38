"""The regularised ptychographical iterative engine with momentum."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``mpie``."""
    return [
        SolverRecord(
            name="mpie",
            summary="mPIE: regularised updates, LED by LED, with momentum",
            solver="fpmtools_mpie.solver:MomentumPie",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "patterns", "masks"}),
            references=("A. Maiden, D. Johnson, P. Li, Optica 4, 736 (2017), doi:10.1364/OPTICA.4.000736",),
        )
    ]
