"""The measurements that ``paper.py`` works on: the published files where they are at hand, their twins otherwise."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fpmtools
from fpmtools import catalogue
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.formats import manifest, native

# Any patch of the twin reaches from −10 to 10 µm, so that a small one has depth to find as well.
TILT_UM = 10.0


@dataclass(frozen=True)
class Sample:
    """A published sample: its entries in the manifest, the first that is there counts, and its twin's name."""

    entries: tuple[str, ...]
    twin: str
    changes: tuple[tuple[str, Any], ...] = ()  # to the arguments of the twin's simulation


VOLUME = Sample(("blood_smear_tilt_g", "blood_smear_tilt_r"), "twin-blood-smear", (("tilt_um", TILT_UM),))
FLAT = Sample(("sheepblood_r", "siemens_r"), "twin-sheepblood")


@dataclass(frozen=True)
class Source:
    """Where the measurements of a sample come from: ``file``, of the manifest's ``entry``, or the twin."""

    sample: Sample
    entry: manifest.ManifestEntry | None = None
    file: Path | None = None

    @property
    def label(self) -> str:
        """What a table says."""
        return f"`sim:{self.sample.twin}`" if self.file is None else f"the measured `{self.file.name}`"

    def patch(self, side: int, folder: Path) -> Path:
        """A file in ``folder`` with the central ``side`` × ``side`` pixels, or with all along an axis that has fewer.

        A twin is simulated at that size.
        """
        path = folder / f"{self.sample.twin}-{side}.safetensors"
        return path if path.is_file() else native.save(self._cut(side), path)

    def _cut(self, side: int) -> Dataset:
        if self.file is None or self.entry is None:
            return catalogue.make(f"{self.sample.twin}@{side}x{side}", **dict(self.sample.changes))
        whole = _measured(self.file, tuple(self.entry.optics.items()))
        (h, w), (high, wide) = whole.image_shape, (min(side, n) for n in whole.image_shape)
        return whole.crop((h - high) // 2, (w - wide) // 2, high, wide)


def find(sample: Sample, folder: Path | None) -> Source:
    """A sample's file in ``folder``, or without one where ``fpmtools data fetch`` puts it; else the twin."""
    for entry in map(manifest.find, sample.entries):
        if folder is None:
            paths = manifest.local_files(entry) or []
        else:
            paths = [path for path in sorted(folder.rglob("*.mat")) if path.name.lower() == entry.files[0].name.lower()]
        if paths:
            return Source(sample, entry, paths[0])
    return Source(sample)


def find_all(folder: Path | None) -> dict[str, Source]:
    """Both samples; :class:`DataError` when a folder was given and neither is in it."""
    found = {"volume": find(VOLUME, folder), "flat": find(FLAT, folder)}
    if folder is not None and not any(source.file for source in found.values()):
        names = [manifest.find(name).files[0].name for name in (*VOLUME.entries, *FLAT.entries)]
        raise DataError(f"{folder}: none of {', '.join(names)} is there; leave out --data to work on their twins")
    return found


@functools.lru_cache(maxsize=1)
def _measured(path: Path, optics: tuple[tuple[str, float], ...]) -> Dataset:
    """A whole file; reading one takes long enough to keep it for the next patch."""
    return fpmtools.load(path, optics=dict(optics))
