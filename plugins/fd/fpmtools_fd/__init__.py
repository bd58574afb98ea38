"""Feature-domain retrieval: edges of the images are compared, and not their brightness."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``fd``."""
    return [
        SolverRecord(
            name="fd",
            summary="FD-FPM: compares edges and not brightness, by adaptive gradients",
            solver="fpmtools_fd.solver:FeatureDomain",
            capabilities=frozenset({"2d", "z-stack", "resume", "cuda", "patterns", "masks"}),
            references=(
                "S. Zhang et al., Optica 11, 634 (2024), https://opg.optica.org/abstract.cfm?uri=optica-11-5-634",
            ),
        )
    ]
