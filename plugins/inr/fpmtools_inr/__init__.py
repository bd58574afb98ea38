"""FPM-INR: an implicit neural representation of the sample, rendered at any z."""

from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers() -> list[SolverRecord]:
    """Announce ``inr`` and the kind of result that it stores."""
    return [
        SolverRecord(
            name="inr",
            summary="FPM-INR: a feature plane, a z-vector and two small networks fitted to all images, continuous in z",
            solver="fpmtools_inr.solver:FpmInr",
            reconstructions={"inr": "fpmtools_inr.reconstruction:InrReconstruction"},
            capabilities=frozenset({"2d", "z-stack", "continuous-z", "resume", "cuda", "losses", "patterns", "masks"}),
            references=(
                "H. Zhou, B. Y. Feng, H. Guo, S. Lin, M. Liang, C. A. Metzler, C. Yang, "
                "Optica 10, 1679 (2023), doi:10.1364/OPTICA.505283",
            ),
        )
    ]
