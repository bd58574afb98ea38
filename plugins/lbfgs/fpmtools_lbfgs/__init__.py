"""Limited-memory BFGS on the spectrum, for any loss, with smoothed total variation."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``lbfgs``."""
    return [
        SolverRecord(
            name="lbfgs",
            summary="L-BFGS: quasi-Newton on any loss, with smoothed total variation",
            solver="fpmtools_lbfgs.solver:Lbfgs",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "losses", "patterns", "masks"}),
            references=("D. C. Liu, J. Nocedal, Math. Program. 45, 503 (1989), doi:10.1007/BF01589116",),
        )
    ]
