"""What can be found about the instrument from the images alone, each finder giving a :class:`Calibration`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fpmtools.calibrate.board import find_board
from fpmtools.calibration import JOINT, Calibration
from fpmtools.dataset import Dataset, as_planes, expect_dataset
from fpmtools.errors import expect, unknown
from fpmtools.progress import bar
from fpmtools.threads import limited

__all__ = ["AUTO", "NOMINAL", "NONE", "calibrate", "find_board", "improve", "resolve", "warnings"]

AUTO, NOMINAL, NONE = "auto", "nominal", "none"
NAMES = {  # of what a joint fit looks for
    "focus": "where the sample is",
    "background": "a background",
    "exposure": "the dark field's exposure",
    "board": "the board's place",
    "pupil": "aberrations",
    "apodization": "light lost in the pupil",
    "gain": "the brightness of each LED",
    "jitter": "the place of each LED",
    "stray": "stray light that differs over the field",
    "vignetting": "a second aperture that vignets the pupil",
}


def calibrate(
    dataset: Dataset,
    groups: str = AUTO,
    *,
    z_um: Sequence[float] | float | None = None,
    start: str | Path | Calibration = AUTO,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    on_step: Callable[[int, int], object] | None = None,
) -> Calibration:
    """Fit the instrument together with the object, and keep what left-out images confirm.

    Parameters
    ----------
    dataset
        The images, and the instrument as the data say it is.
    groups
        What to look for: "auto" for all, or names with commas between them, of ``focus``, ``background``,
        ``exposure``, ``board``, ``pupil``, ``apodization``, ``gain``, ``jitter`` (the place of each LED), ``stray`` and
        ``vignetting``.
    z_um
        Where the sample is, µm; default: what the data say, else it is looked for.
    start
        "auto" (what the images say of the board), "nominal" (what the data say), a calibration, or the file of one.
    seed
        Of all that is random.
    threads
        CPU threads meanwhile; default 1, which is fastest for most fields.
    progress
        Show a bar in a terminal (on stderr) or a notebook.
    on_step
        Called as ``on_step(step, steps)``.

    Returns
    -------
    Calibration
        With what was found in ``found``; the one that it started from where nothing was. ``reconstruct`` takes it as
        ``calibration``, and its ``save`` writes it for ``--calibration FILE``.

    Raises
    ------
    OptionError
        An unknown name, or a value of the wrong kind.
    DataError
        Images, or a file, that cannot be used.

    Examples
    --------
    >>> data = fpmtools.simulate("thin", image_shape=(32, 48))
    >>> fpmtools.calibrate(data)
    Calibration
      LEDs        68 to NA 0.251
      images      68
      pupil       ideal
      background  none
      defocus     0 µm
      found       nothing: all as it was given
    """
    expect_dataset(dataset, "calibrate: dataset")
    expect(seed, int, "calibrate: seed", "a whole number")

    def tell(step: int, steps: int) -> None:
        show({"step": step, "total": steps, "doing": "calibrating"})
        if on_step is not None:
            on_step(step, steps)

    with limited(threads or 1), bar(dataset.name, progress) as show:
        return improve(dataset, resolve(dataset, start), groups, z_um=z_um, seed=seed, on_step=tell)


def resolve(dataset: Dataset, how: str | Path | Calibration = AUTO) -> Calibration:
    """The instrument as a run takes it to be.

    ``how``: "auto" looks at the images, once, and leaves what was found before as it is; "nominal" is what the data set
    says; a calibration, or the file of one, is taken for the images of ``dataset``.
    """
    expect(how, (str, Path, Calibration), "calibration", "auto, nominal, a file or a Calibration")
    if isinstance(how, Calibration):
        return how
    if how == NOMINAL:
        return dataset.calibration
    if how == AUTO:
        return dataset.calibration if "board" in dataset.calibration.found else find_board(dataset)
    return Calibration.load(how, dataset.optics, dataset.n_images, dataset.box)


def improve(
    dataset: Dataset,
    calibration: Calibration,
    groups: str = AUTO,
    *,
    z_um: Sequence[float] | float | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], object] = lambda step, steps: None,
) -> Calibration:
    """``calibration``, with what a joint fit of instrument and object finds and left-out images confirm.

    ``groups``: "none", "auto" for all of them, or names of :data:`joint.GROUPS` with commas between them. A calibration
    that a joint fit has seen stays as it is. The fit has a sample at several ``z_um`` in one plane in their middle, and
    takes no defocus to be the pupil's then. The focus is looked for by name, or where it is neither given by ``z_um``
    nor known. Raises :class:`OptionError` for another name.
    """
    expect(groups, str, "calibrate", "auto, none, or names with commas between them")
    planes = dataset.planes_um if z_um is None else as_planes(z_um)
    if groups == NONE or JOINT in calibration.found:
        return calibration
    from fpmtools.calibrate import joint

    known = z_um is not None or calibration.defocus_um is not None or dataset.truth is not None
    every = joint.GIVEN_FOCUS if known else joint.GROUPS
    chosen = every if groups == AUTO else tuple(groups.split(","))
    for name in chosen:
        if name not in joint.GROUPS:
            raise unknown("calibrate:", name, (AUTO, NONE, *joint.GROUPS))
    middle, deep = (planes[0] + planes[-1]) / 2, len(planes) > 1
    return joint.fit(dataset, calibration, z_um=middle, groups=chosen, deep=deep, seed=seed, on_step=on_step)


def warnings(calibration: Calibration) -> list[str]:
    """What was found and what was done about it, in plain words; empty when all is as the data set says."""
    board, said = calibration.found.get("board", {}), []
    if count := board.get("contradicted", 0):
        fate = f"the positions are taken as they are; {board['cause']}"
        if any(board["shift_na"]):
            x, y = board["shift_na"]
            left = len(board["left_out"])
            rest = f", {left} of them left out" if left else ""
            fate = f"all are moved by NA ({x:+.4f}, {y:+.4f}){rest} (the nominal calibration leaves them)"
        said.append(
            f"{count} of {calibration.images} LEDs near the edge of the pupil are dark where their positions say "
            f"bright, or the reverse: {fate}; check LED positions, NA and wavelength"
        )
    elif board.get("cause"):
        said.append(f"{board['cause']}: check the order of the files and of the LED positions")
    said += _of_joint(calibration.found.get(JOINT, {}))
    if board.get("dead"):
        dead = ", ".join(map(str, board["dead"][:5]))
        said.append(f"the image of LED {dead} is black although its light passes the objective: left out")
    return said


def _of_joint(found: Mapping[str, Any]) -> list[str]:
    """What a joint fit has found, in a line; nothing where there was nothing to look for."""
    if "fitted" not in found:
        return []
    off = f"the images do not fit the instrument as it is given ({found['explained']:.3g} × what noise makes)"
    if "diverged" in found:
        return [f"{off}, and the fit of another one went astray: the instrument is taken as it is given"]
    told = {"focus", "exposure"}  # with what was found
    kept = [NAMES[name] for name, group in found["groups"].items() if group["kept"] and name not in told]
    if "exposure" in found:
        kept.insert(0, f"{NAMES['exposure']} (× {found['exposure']:.3g})")
    if found.get("depth_um"):
        kept.insert(0, f"{NAMES['focus']} (z = {found['depth_um']:.3g} µm)")
    if found["softness"]:
        kept.append("a soft edge of the pupil")
    if found["margin"]:
        kept.append(f"a margin of {found['margin']} pixels")
    if not kept and found.get("deep"):
        return []  # images of a sample with depth never fit one plane
    if not kept:
        return [f"{off}, and no other was found that predicts left-out images better; look at what was measured"]
    changed = found["fitted"] != found["nominal"]
    change = f" (error of left-out images {found['nominal']:.3g} → {found['fitted']:.3g})" if changed else ""
    return [f"{off}; taken from the images: {', '.join(kept)}{change}"]
