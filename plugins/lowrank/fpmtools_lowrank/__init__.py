"""An explicit model of a sample with depth: a sum of few terms over z, without a network."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``lowrank``."""
    return [
        SolverRecord(
            name="lowrank",
            summary="amplitude and phase as sums of terms u(z) V(x, y), fitted to all images at all depths together",
            solver="fpmtools_lowrank.solver:LowRank",
            capabilities=frozenset({"2d", "z-stack", "continuous-z", "resume", "cuda", "losses", "patterns", "masks"}),
            references=(
                "H. Zhou, B. Y. Feng, H. Guo, S. Lin, M. Liang, C. A. Metzler, C. Yang, "
                "Optica 10, 1679 (2023), doi:10.1364/OPTICA.505283",
                "S. Gunasekar, B. Woodworth, S. Bhojanapalli, B. Neyshabur, N. Srebro, Advances in Neural Information "
                "Processing Systems 30 (2017), arXiv:1705.09280",
            ),
        )
    ]
