"""Adam on the object's pixels, one object per z-plane."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``adam``."""
    return [
        SolverRecord(
            name="adam",
            summary="Adam on the object itself: gradient descent with momentum on one image per plane",
            solver="fpmtools_adam.solver:AdamPixels",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "losses", "patterns", "masks"}),
            references=("D. P. Kingma, J. Ba, ICLR 2015, doi:10.48550/arXiv.1412.6980",),
        )
    ]
