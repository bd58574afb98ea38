"""Opening saved results: the solver that announced a result's kind restores it."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path

from fpmtools import registry, storage
from fpmtools.calibration import Calibration
from fpmtools.errors import DataError, expect, printable
from fpmtools.low_rank import LowRankStack
from fpmtools.reconstruction import CALIBRATION, RESULT_FILE, Grid, PlaneStack, Reconstruction

OWN: dict[str, type[Reconstruction]] = {cls.kind: cls for cls in (PlaneStack, LowRankStack)}
# Named and not imported, like a plugin's: it is made of other results, and comes after them.
LATER = {
    "mosaic": "fpmtools.tiling.mosaic:Mosaic",
    "colour": "fpmtools.colour.result:ColourReconstruction",
}

FEW = 5  # results that are named where a folder has several


def open_result(path: str | Path) -> Reconstruction:
    """Open a saved result.

    Parameters
    ----------
    path
        A file that :meth:`Reconstruction.save` wrote, or a run's folder, with ``reconstruction.safetensors`` in it.

    Returns
    -------
    Reconstruction
        With the calibration that it was solved with.

    Raises
    ------
    DataError
        The file is missing or damaged.
    SolverError
        Its solver is not installed.

    Examples
    --------
    >>> data = fpmtools.simulate("thin", image_shape=(16, 24))
    >>> result = fpmtools.reconstruct(data, "ap", options={"sweeps": 2})
    >>> again = fpmtools.open_result(result.save("ap.safetensors"))
    >>> np.array_equal(again.field(), result.field())
    True
    """
    expect(path, (str, Path), "open_result: path", "a path")
    path = _file_in(Path(path)) if os.path.isdir(path) else Path(path)
    tensors, header = storage.read_tensors(path, "reconstruction")
    try:
        kind, where = header["kind"], Grid.from_dict(header["grid"])
        cls = _class_of(kind)
        known = {k.removeprefix(CALIBRATION): v for k, v in tensors.items() if k.startswith(CALIBRATION)}
        own = {name: values for name, values in tensors.items() if not name.startswith(CALIBRATION)}
        result = cls.restore(where, own, header["config"])
        if "calibration" in header:
            result.calibration = Calibration.restore(known, header["calibration"])
        result.metadata.update(header["metadata"])
        result.opened_from(path.parent)
        return result
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a complete reconstruction ({error!r})") from error


def _file_in(folder: Path) -> Path:
    """The result in a run's folder; :class:`DataError` with those that are below it, where it is another's."""
    if not (folder / RESULT_FILE).exists():
        runs = sorted(str(folder / path.name) for path in folder.iterdir() if (path / RESULT_FILE).is_file())
        which = (
            f": give one of {', '.join(map(printable, runs[:FEW]))}{', …' if len(runs) > FEW else ''}" if runs else ""
        )
        raise DataError(f"{folder}: no {RESULT_FILE} in this folder{which}")
    return folder / RESULT_FILE


def open_part(folder: Path | None, beside: str, name: str, checksum: str | None) -> Reconstruction:
    """A result that another one is made of: that of the run in ``beside``/``name`` below the other one's ``folder``.

    Raises :class:`DataError` where its file is damaged, missing, or does not lie there.
    """
    if folder is None:
        raise DataError("this result has no folder with its parts; open it from where it was solved")
    path = folder / beside / name / RESULT_FILE
    if Path(name).name != name or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: {beside}/{printable(name)} does not lie in this folder")
    try:
        with path.open("rb") as content:
            sound = hashlib.file_digest(content, "sha256").hexdigest() == checksum
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); resume the run") from error
    if not sound:
        raise DataError(f"{path}: damaged: its checksum is another; resume the run to have it solved again")
    return open_result(path)


def _class_of(kind: str) -> type[Reconstruction]:
    if kind in LATER:
        module, _, name = LATER[kind].partition(":")
        found: type[Reconstruction] = getattr(importlib.import_module(module), name)
        return found
    return OWN[kind] if kind in OWN else registry.reconstruction_class(kind)
