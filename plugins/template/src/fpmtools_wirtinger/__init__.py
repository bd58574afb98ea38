"""Gradient descent on the object's spectrum: an example of a solver for fpmtools."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce the solver; fpmtools imports its module when somebody uses it."""
    return [
        SolverRecord(
            name="wirtinger",
            summary="Gradient descent on the spectrum, all LEDs at once",
            solver="fpmtools_wirtinger.solver:Wirtinger",
            capabilities=frozenset({"2d", "z-stack", "resume", "losses", "patterns", "masks"}),
            references=("L.-H. Yeh et al., Opt. Express 23, 33214 (2015), doi:10.1364/OE.23.033214",),
        )
    ]
