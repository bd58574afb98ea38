"""What is known of the instrument: where the LEDs stand, which images count, and what light and lens do to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools import storage
from fpmtools.display import Shown, number
from fpmtools.errors import DataError, OptionError
from fpmtools.leds import seen_from
from fpmtools.optics import Box, Optics, Shape
from fpmtools.pupil import Pupil
from fpmtools.stray import StrayLight
from fpmtools.surfaces import Surface

KIND = "calibration"
JOINT = "joint"  # under which ``found`` says what a joint fit of instrument and object has found


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """The instrument as it is taken to be, of one data set; nominal, or as it was found.

    Parameters
    ----------
    na
        Illumination direction sines, [led, (x, y)] float64: an LED's image is the object spectrum cropped around
        **+na / λ**. Where ``height_mm`` is known they are those in the middle of the field of view.
    used
        [image] bool, False for images that are left out.
    gain
        Intensity of each LED, [led], relative to the others; 1 is nominal.
    background
        What is added to each image everywhere, [image], in the images' own units.
    stray
        What is added besides and differs over the field, :class:`fpmtools.stray.StrayLight`; None: nothing.
    pupil
        See :class:`fpmtools.pupil.Pupil`.
    defocus_um
        Where the sample is known to be; None: unknown.
    patterns
        Which LEDs light an image, and how strongly: [image, led] weights of their intensities; None: image i is lit by
        LED i alone.
    found
        What was not taken from the file but found: its name → how, and how sure; JSON-ready. Empty: all is nominal.
    height_mm
        How far the plane of each LED is from the sample, [led], so that a part of the field has angles of its own, see
        :meth:`seen_from`; None: not known, or light that comes from afar.
    aberrations
        The pupil's Zernike coefficients over the field, where they were found to change: ``pupil`` has those in the
        middle of the field of view. None: they are the same everywhere.
    """

    na: NDArray[np.float64]
    used: NDArray[np.bool_]
    gain: NDArray[np.float64]
    background: NDArray[np.float64]
    pupil: Pupil = field(default_factory=Pupil)
    defocus_um: float | None = None
    patterns: NDArray[np.float64] | None = None
    found: Mapping[str, Any] = field(default_factory=dict)
    stray: StrayLight | None = None
    height_mm: NDArray[np.float64] | None = None
    aberrations: Surface | None = None
    drawn_by = "fpmtools.report.notebook:calibration"

    def facts(self) -> dict[str, str]:
        """LEDs, images, pupil, depth, and what of it was found."""
        out, lit = int((~self.used).sum()), "" if self.patterns is None else ", lit by several LEDs each"
        steepest, spread = float(np.linalg.norm(self.na, axis=1).max()), float(self.gain.std() / self.gain.mean())
        facts = {
            "LEDs": f"{len(self.na)} to NA {number(steepest, 3)}"
            + (f", gains ± {number(100 * spread, 3)} %" if spread else ""),
            "images": f"{self.images}{f', {out} left out' if out else ''}{lit}",
            "pupil": self.pupil.in_words() + (", changes over the field" if self.aberrations is not None else ""),
            "background": f"up to {number(float(self.background.max()), 3)}" if self.background.any() else "none",
            "defocus": "not known" if self.defocus_um is None else f"{number(self.defocus_um)} µm",
        }
        facts |= {} if self.stray is None else {"stray light": f"{len(self.stray.pictures)} pictures"}
        board = self.found.get("board", {})
        moved = any(board.get("shift_na", ())) or board.get("left_out") or board.get("dead")
        kept = [name for name, group in self.found.get(JOINT, {}).get("groups", {}).items() if group["kept"]]
        found = ", ".join(dict.fromkeys([*(["board"] if moved else []), *kept]))
        return facts | {"found": found or "nothing: all as it was given"}

    def __post_init__(self) -> None:
        leds, images = len(self.na), len(self.used)
        if self.na.shape != (leds, 2) or not np.isfinite(self.na).all():
            raise DataError(f"calibration: na must be finite and [led, (x, y)], got shape {self.na.shape}")
        shape = (leds, leds) if self.patterns is None else self.patterns.shape
        if shape != (images, leds):
            raise DataError(
                f"calibration: {images} images and {leds} LEDs, but patterns of shape {shape}; there must be one row "
                "per image and one column per LED"
            )
        for name, count in (("gain", leds), ("background", images)):
            values = getattr(self, name)
            if values.shape != (count,) or not np.isfinite(values).all() or values.min() < 0:
                raise DataError(f"calibration: {name} must be {count} finite numbers, 0 or more")
        height = self.height_mm
        if height is not None and (height.shape != (leds,) or not (np.isfinite(height) & (height > 0)).all()):
            raise DataError(f"calibration: height_mm must be {leds} finite numbers above 0")
        if self.stray is not None and len(self.stray.levels) != images:
            raise DataError(f"calibration: stray light of {len(self.stray.levels)} images, and {images} images")
        if self.patterns is not None and (not np.isfinite(self.patterns).all() or self.patterns.min() < 0):
            raise DataError("calibration: the weights of patterns must be finite, 0 or more")

    @classmethod
    def nominal(
        cls,
        na: ArrayLike,
        *,
        pupil: Pupil | None = None,
        defocus_um: float | None = None,
        patterns: ArrayLike | None = None,
        used: ArrayLike | None = None,
        height_mm: ArrayLike | None = None,
    ) -> Calibration:
        """What a file says, before anything is looked for: ``na`` [led, (x, y)], every image used, gains of 1."""
        directions = np.ascontiguousarray(na, dtype=np.float64)
        weights = None if patterns is None else np.ascontiguousarray(patterns, dtype=np.float64)
        count = len(directions) if weights is None else len(weights)
        return cls(
            directions,
            np.ones(count, bool) if used is None else np.asarray(used, dtype=bool),
            np.ones(len(directions)),
            np.zeros(count),
            pupil or Pupil(),
            None if defocus_um is None else float(defocus_um),
            weights,
            height_mm=None if height_mm is None else np.ascontiguousarray(height_mm, dtype=np.float64),
        )

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.used)

    @property
    def image_na(self) -> NDArray[np.float64]:
        """Where each image's light comes from, [image, (x, y)]: its LED, or the middle of those that light it."""
        if self.patterns is None:
            return self.na
        weights = self.patterns * self.gain
        return np.asarray(weights @ self.na / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300))

    @property
    def margin(self) -> int:
        """Camera pixels beyond the border that a joint fit has found to pay; 0 where it has not, or there was none."""
        return int(self.found.get(JOINT, {}).get("margin", 0))

    @property
    def depth_um(self) -> float | None:
        """Where a joint fit that looked for it has found the sample, µm; None where it did not look."""
        depth = self.found.get(JOINT, {}).get("depth_um")
        return None if depth is None else float(depth)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Image indices by ascending |NA|: the order in which classical solvers visit them."""
        return np.argsort(np.linalg.norm(self.image_na, axis=1), kind="stable")

    def bright_field(self, optics: Optics) -> NDArray[np.bool_]:
        """[image] bool, True where direct light enters the objective."""
        inside = np.asarray(np.linalg.norm(self.na, axis=1) <= optics.na)
        return inside if self.patterns is None else np.asarray((self.patterns[:, inside] > 0).any(axis=1))

    def select(self, images: ArrayLike) -> Calibration:
        """Of the images with these indices only, in the order given."""
        index = np.asarray(images, dtype=np.intp)
        stray = None if self.stray is None else self.stray.select(index)
        parts: dict[str, Any] = {"used": self.used[index], "background": self.background[index], "stray": stray}
        if self.patterns is None:
            height = None if self.height_mm is None else self.height_mm[index]
            return replace(self, na=self.na[index], gain=self.gain[index], height_mm=height, **parts)
        return replace(self, patterns=self.patterns[index], **parts)

    def seen_from(self, there: Box, here: Box, pixel_um: float) -> Calibration:
        """Of the part ``there`` of the whole frame, where this one is of ``here``; ``pixel_um`` is on the sample.

        Stray light keeps its place. LEDs at a known height light the new part's middle from where they stand: na =
        (p - r) / √(|p - r|² + h²), p their place over the middle of ``here`` and r that of ``there``. Aberrations that
        change over the field are those of the new part's middle; all else of the pupil, and the defocus, stay.
        """
        corner = there[0] - here[0], there[1] - here[1]
        own: dict[str, Any] = {} if self.stray is None else {"stray": self.stray.seen_from(*corner)}
        if self.aberrations is not None:
            moved = self.aberrations.seen_from(*corner)
            zernike = moved.at([(0, 0, there[2], there[3])])[0]
            own |= {"aberrations": moved, "pupil": replace(self.pupil, zernike_rad=zernike)}
        if self.height_mm is None:
            return replace(self, **own) if own else self
        away_mm = [
            (step + (new - old) / 2) * pixel_um * 1e-3
            for step, new, old in zip(corner, there[2:], here[2:], strict=True)
        ]
        return replace(self, na=seen_from(self.na, self.height_mm, (away_mm[1], away_mm[0])), **own)

    def added(self, image_shape: Shape) -> NDArray[np.float64]:
        """What background and stray light add to the mean of each image, [image], in the images' units."""
        return self.background if self.stray is None else self.background + self.stray.means(image_shape)

    def selected(self) -> Calibration:
        """Of the images that are used."""
        return self if self.used.all() else self.select(np.flatnonzero(self.used))

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides a reconstruction: two runs with the same see the same instrument."""
        tensors, about = self.dump()
        sha = hashlib.sha256(json.dumps({k: v for k, v in about.items() if k != "found"}, sort_keys=True).encode())
        for name in sorted(tensors):
            sha.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
        return sha.hexdigest()

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything in it but what is nominal: named real arrays, and JSON-ready values."""
        tensors: dict[str, NDArray[Any]] = {"na": self.na, "used": self.used}
        tensors |= {} if (self.gain == 1).all() else {"gain": self.gain}
        tensors |= {"background": self.background} if self.background.any() else {}
        tensors |= {} if self.patterns is None else {"patterns": self.patterns}
        tensors |= {} if self.height_mm is None else {"height_mm": self.height_mm}
        pupil, of_pupil = self.pupil.dump()
        tensors |= {f"pupil.{name}": values for name, values in pupil.items()}
        about = {"defocus_um": self.defocus_um, "pupil": of_pupil, "found": storage.finite(self.found)}
        if self.aberrations is not None:
            tensors["aberrations"], about["aberrations_place"] = (
                self.aberrations.coefficients,
                list(self.aberrations.place),
            )
        if self.stray is not None:
            stray, about["stray_place"] = self.stray.dump()
            tensors |= {f"stray.{name}": values for name, values in stray.items()}
        return tensors, about

    @classmethod
    def restore(cls, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Calibration:
        """Inverse of :meth:`dump`; KeyError, TypeError or ValueError where something is missing."""
        na, used = tensors["na"].astype(np.float64), tensors["used"].astype(bool)
        prefix = "pupil."
        pupil = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
        defocus, stray, aberrations = about["defocus_um"], None, None
        if "stray_place" in about:
            levels, pictures = (tensors[f"stray.{name}"].astype(np.float64) for name in ("levels", "pictures"))
            stray = StrayLight(levels, pictures, _place(about["stray_place"]))
        if "aberrations_place" in about:
            aberrations = Surface(tensors["aberrations"].astype(np.float64), _place(about["aberrations_place"]))
        return cls(
            na,
            used,
            tensors.get("gain", np.ones(len(na))).astype(np.float64),
            tensors.get("background", np.zeros(len(used))).astype(np.float64),
            Pupil.restore(pupil, about["pupil"]),
            None if defocus is None else float(defocus),
            tensors.get("patterns"),
            dict(about["found"]),
            stray,
            tensors.get("height_mm"),
            aberrations,
        )

    def save(self, path: str | Path, optics: Optics, box: Box | None = None) -> Path:
        """Write it to a file of its own, with the microscope that it is of.

        ``box``: the part of the whole frame that it is of, :attr:`fpmtools.Dataset.box`; needed where LEDs have a known
        height, for their angles are of that part's middle.
        """
        if box is None and self.height_mm is not None:
            raise OptionError(
                "calibration: LEDs at a known height light each part of the field from other angles: say which part "
                "this is of (box=dataset.box)"
            )
        tensors, about = self.dump()
        place = {} if box is None else {"box": list(box)}
        return storage.write_tensors(path, tensors, KIND, {**about, **place, "optics": optics.to_dict()})

    @classmethod
    def load(cls, path: str | Path, optics: Optics, images: int, box: Box | None = None) -> Calibration:
        """What :meth:`save` wrote, for the part ``box`` of the whole frame; None: the part that it was saved for.

        Raises :class:`DataError` when the file is damaged, and :class:`OptionError` when it is of another microscope
        than ``optics``, or of another number of ``images``.
        """
        tensors, header = storage.read_tensors(path, KIND)
        try:
            found, of = cls.restore(tensors, header), Optics(**header["optics"])
            here = None if box is None else header.get("box", (0, 0, *box[2:]))
            if here is not None:
                y, x, height, width = (int(n) for n in here)
                here = y, x, height, width
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path}: not a complete calibration ({error!r})") from error
        if of != optics:
            mine, given = optics.to_dict(), of.to_dict()
            other = ", ".join(
                f"{name} {given[name]:g} and not {mine[name]:g}" for name in mine if mine[name] != given[name]
            )
            raise OptionError(f"{path}: a calibration of another microscope ({other})")
        if found.images != images:
            raise OptionError(f"{path}: a calibration of {found.images} images; the data have {images}")
        return found if box is None or here is None else found.seen_from(box, here, optics.pixel_um)


def _place(given: Any) -> tuple[float, float, float, float]:
    y, x, height, width = map(float, given)
    return y, x, height, width
