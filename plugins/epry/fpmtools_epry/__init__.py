"""Embedded pupil function recovery: the object and the objective's pupil, LED by LED."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``epry``."""
    return [
        SolverRecord(
            name="epry",
            summary="EPRY: object and pupil recovered together, LED by LED",
            solver="fpmtools_epry.solver:Epry",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "patterns", "masks"}),
            references=("X. Ou, G. Zheng, C. Yang, Opt. Express 22, 4960 (2014), doi:10.1364/OE.22.004960",),
        )
    ]
