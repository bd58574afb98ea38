"""Classical alternating projections, one object per z-plane."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``ap``."""
    return [
        SolverRecord(
            name="ap",
            summary="Alternating projections: the classical LED-by-LED update of one spectrum per plane",
            solver="fpmtools_ap.solver:AlternatingProjection",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "patterns", "masks"}),
            references=(
                "G. Zheng, R. Horstmeyer, C. Yang, Nat. Photonics 7, 739 (2013), doi:10.1038/nphoton.2013.187",
                "C. Zuo, J. Sun, Q. Chen, Opt. Express 24, 20724 (2016), doi:10.1364/OE.24.020724",
            ),
        )
    ]
