"""What a comparison consists of: one run for each solver, data set, seed and repeat, as a list of RunSpecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fpmtools.comparison.spec import Spec, slug
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec


@dataclass(frozen=True)
class Source:
    """A data set as the runs read it, with the instrument as ``calibrate`` has found it.

    ``truth`` is the truth's digest, which the numbers of a run depend on.
    """

    name: str
    digest: str
    file: Path
    z_um: tuple[float, ...]
    truth: str | None = None
    calibrate: str = ""

    @property
    def data(self) -> DataSpec:
        """For a RunSpec."""
        return DataSpec(str(self.file), digest=self.digest)


@dataclass(frozen=True)
class Trial:
    """One run: a solver on a data set with a seed.

    ``title`` names the solver, and data set and seed where there are several; ``folder`` is the run's own, beneath the
    comparison's.
    """

    contender: Spec
    source: Source
    repeat: int
    title: str
    folder: str
    spec: RunSpec

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the record that says which run it is."""
        return {
            "label": self.contender.label,
            "title": self.title,
            "data": {"name": self.source.name, "digest": self.source.digest},
            "seed": self.spec.seed,
            "repeat": self.repeat,
            "folder": self.folder,
        }

    def of_part(self, name: str, part: Source) -> Trial:
        """The same on part of the LEDs, in a folder ``name`` in its own; what they are is settled by the whole."""
        spec = replace(
            self.spec,
            data=part.data,
            calibration="nominal",
            calibrate="none",
            outputs=Outputs(track=False, measures=(), pictures=()),
        )
        return replace(self, source=part, folder=f"{self.folder}/{name}", spec=spec)

    def measuring(self, *more: str) -> Trial:
        """The same, with these measures as well."""
        outputs = self.spec.outputs
        measures = (*(outputs.measures or ()), *more)
        return replace(self, spec=replace(self.spec, outputs=replace(outputs, measures=measures)))

    @property
    def unable(self) -> str:
        """Why the solver cannot do what is asked, by its own account; empty when it says nothing against it."""
        can = self.contender.capabilities
        if can and len(self.source.z_um) > 1 and not can & {"z-stack", "continuous-z"}:
            return f"solver {self.spec.solver!r} takes one plane, not {len(self.source.z_um)}; give one z"
        return ""


def interleaved(
    contenders: Sequence[Spec],
    sources: Sequence[Source],
    seeds: Sequence[int],
    repeats: int,
    outputs: Mapping[Source, Outputs],
    **common: Any,
) -> list[Trial]:
    """All runs, repeats interleaved (A B A B), so that a machine that slows down does not slow down only the last.

    Every solver has the sources with the instrument as it is to take it. ``outputs`` are those of each data set's runs;
    ``common`` are what else all RunSpecs have.
    """
    trials = []
    by_name: dict[str, dict[str, Source]] = {}
    for source in sources:
        by_name.setdefault(source.name, {})[source.calibrate] = source
    for repeat in range(repeats):
        for own in by_name.values():
            for seed in seeds:
                for contender in contenders:
                    source = own[contender.calibrate]
                    title, folder = [contender.label], [contender.folder]
                    if len(by_name) > 1:
                        title.append(source.name)
                        folder.append(slug(source.name))
                    if len(seeds) > 1:
                        title.append(f"seed {seed}")
                        folder.append(f"seed{seed}")
                    if repeat:
                        folder.append(f"run{repeat + 1}")
                    spec = RunSpec(
                        source.data,
                        contender.solver,
                        dict(contender.options),
                        z_um=source.z_um,
                        seed=seed,
                        outputs=outputs[source],
                        **common,
                    )
                    # A slug has no "+", so no two trials share a folder.
                    trials.append(Trial(contender, source, repeat, " · ".join(title), "+".join(folder), spec))
    return trials
