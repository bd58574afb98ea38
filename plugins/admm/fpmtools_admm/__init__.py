"""The alternating direction method of multipliers, with a closed-form object update and a denoiser."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``admm``."""
    return [
        SolverRecord(
            name="admm",
            summary="ADMM: all LEDs together, object in closed form, with a denoiser",
            solver="fpmtools_admm.solver:Admm",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "patterns", "masks"}),
            references=("A. Wang et al., Cells 11, 1512 (2022), doi:10.3390/cells11091512",),
        )
    ]
