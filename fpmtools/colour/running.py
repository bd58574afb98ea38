"""A run in several colours: each solved by a run of its own, registered, white-balanced; it can be resumed anywhere."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fpmtools import clear, threads
from fpmtools.colour import registration
from fpmtools.colour.result import CHANNELS_FOLDER, Channel, ColourReconstruction
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OpticsError, OptionError
from fpmtools.optics import Box
from fpmtools.reconstruction import Grid, Reconstruction
from fpmtools.results import open_result
from fpmtools.runs import log, running, tasks
from fpmtools.runs.folder import INTERRUPTED, PARTIAL, RESULT_FILE, RUN_FILE, RUNNING, RunFolder, sha256
from fpmtools.runs.part import opened
from fpmtools.runs.spec import RunSpec
from fpmtools.sampling import suggested_upsample

OnEvent = Callable[[dict[str, Any]], object]

# What draws. Named and not imported, for drawing comes after running.
PICTURE = "fpmtools.report.pictures:draw_colour"
SAME = 1e-6  # relative difference of numbers of one microscope
# Of a run's document, what is the same for all colours, and is taken from the reference's.
SHARED = (
    "solver", "solver_class", "preset", "options", "seed", "grid", "loss", "history", "versions", "hardware", "z_um",
    "intensity_scale",
)  # fmt: skip
ADDED = ("steps", "total_steps", "dense_bytes")


@dataclass(frozen=True)
class Seen:
    """What must be known of a colour before any is solved."""

    wavelength_um: float
    upsample: int

    @classmethod
    def of(cls, dataset: Dataset) -> Seen:
        """By its images' microscope: output pixels per camera pixel as :mod:`fpmtools.sampling` asks for."""
        return cls(dataset.optics.wavelength_um, suggested_upsample(dataset.optics, dataset.na))


def carry_on(
    place: RunFolder, *, dataset: Dataset | None = None, on_event: OnEvent | None = None, **tiled: Any
) -> dict[str, Any]:
    """Start or go on with a run in several colours in its open folder; what its ``run.json`` says in the end.

    ``tiled``: how each is solved, see :func:`fpmtools.tiling.running.carry_on`; ``preview`` is of each. Raises as
    :func:`fpmtools.runs.running.resume`, with the name of the colour.
    """
    tell: OnEvent = on_event or (lambda event: None)
    if dataset is not None:
        raise OptionError("a run in several channels reads them from files: give where they are, not a data set")
    spec = RunSpec.from_dict(place.document["spec"])  # as it was asked for: each colour keeps what it has chosen
    before, place.document["status"] = place.solved()[0], RUNNING
    if "channels" not in place.document:
        place.update(channels=_looked_at(spec), resolved={"threads": spec.threads, "device": spec.device})
    known = place.document["channels"]
    ended = {}
    for name in known:
        if not (place.path / CHANNELS_FOLDER / name).is_dir():
            tell({"event": log.LOG, "text": f"channel {name} begins: its log is in {CHANNELS_FOLDER}/{name}"})
        ended[name] = _solved(place, spec, name, _named(tell, name), tiled)
        if ended[name]["status"] == INTERRUPTED:
            place.update(status=INTERRUPTED)
            return place.document
    results = {name: document.get("result_sha256") for name, document in ended.items()}
    done = {name: about.get("sha256") for name, about in known.items()}
    if before and results == done and all((place.path / name).is_file() for name in place.document.get("files", ["-"])):
        place.document["status"] = place.document["solved"]
        return place.document
    return _finished(place, ended, tell)


def _looked_at(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """The colours, the longest wavelength first, when all of them are there and can be one sample's."""
    found: dict[str, Dataset] = {}
    for one in spec.channels:
        try:
            found[one.name] = running.load(spec.of_channel(one.name).data)
        except OpticsError as error:
            if error.missing == ("wavelength_um",):
                raise OptionError(
                    f"channel {one.name}: its wavelength is not known: give it in µm, such as {one.name}=0.532"
                ) from error
            raise OpticsError(f"channel {one.name}: {error}") from error
        except FpmError as error:
            raise type(error)(f"channel {one.name}: {error}") from error
    names = list(found)
    for one_name in names[1:]:
        _check_same(names[0], found[names[0]], one_name, found[one_name])
    waves = {name: dataset.optics.wavelength_um for name, dataset in found.items()}
    for k, name in enumerate(names):
        if twin := next((other for other in names[:k] if waves[other] == waves[name]), None):
            raise OptionError(
                f"channels {twin} and {name} have the same wavelength, {waves[name]:g} µm: give each its own, such as "
                f"{twin}=0.632,{name}=0.532"
            )
    seen = {name: Seen.of(dataset) for name, dataset in found.items()}
    upsample = max(one.upsample for one in seen.values())
    return {
        name: {"wavelength_um": waves[name], "upsample": upsample}
        for name in sorted(names, key=lambda name: -waves[name])
    }


def _check_same(first: str, mine: Dataset, name: str, other: Dataset) -> None:
    """Raise :class:`DataError` where two colours cannot be of one field through one microscope."""
    if mine.image_shape != other.image_shape:
        here, there = ("×".join(map(str, dataset.image_shape)) for dataset in (mine, other))
        raise DataError(f"channel {name} has images of {there} pixels, channel {first} of {here}: cut out the same roi")
    theirs = other.optics.to_dict()
    for key, value in mine.optics.to_dict().items():
        if key != "wavelength_um" and not math.isclose(value, theirs[key], rel_tol=SAME):
            raise DataError(
                f"channel {name} has {key} {theirs[key]:g}, channel {first} {value:g}: all must be of one microscope"
            )


def _named(tell: OnEvent, name: str) -> OnEvent:
    """Warnings of a colour say which; the lines of its log are in its own folder."""

    def told(event: dict[str, Any]) -> None:
        if event["event"] != log.LOG:
            tell({**event, "text": f"channel {name}: {event['text']}"} if event["event"] == "warning" else event)

    return told


def _solved(place: RunFolder, spec: RunSpec, name: str, tell: OnEvent, tiled: Mapping[str, Any]) -> dict[str, Any]:
    """What the run of a colour says in the end, begun or gone on with."""
    own = spec.of_channel(name)
    if own.upsample is None:  # one grid for all
        own = replace(own, upsample=float(place.document["channels"][name]["upsample"]))
    try:
        with opened(place.path / CHANNELS_FOLDER / name, own) as folder:
            how = tiled if own.tiles is not None else {"preview": tiled.get("preview", False)}
            return running.carry_on(folder, on_event=tell, **how)
    except (DataError, OptionError) as error:
        raise type(error)(f"channel {name}: {error}") from error


def _finished(place: RunFolder, ended: Mapping[str, dict[str, Any]], tell: OnEvent) -> dict[str, Any]:
    """Bring the colours onto each other, make the result safe, and draw it."""
    with threads.limited(place.spec.threads):
        tell({"event": tasks.MEASURING, "task": "registering channels"})
        result = join(place.path, ended, lambda text: tell({"event": "warning", "text": text}))
        file = result.save(place.path / RESULT_FILE)
        tell({"event": tasks.MEASURING, "task": "picture"})
        drawn = _drawn(place.path, result) if "files" in place.spec.outputs.pictures else []
    solved = PARTIAL if any(document["solved"] == PARTIAL for document in ended.values()) else "done"
    about = _described(ended, result)
    files = sorted([RUN_FILE, RESULT_FILE, *drawn])
    place.document.pop("replaces", None)
    place.update(**about, solved=solved, status=solved, result_sha256=sha256(file), files=files)
    return place.document


def _drawn(folder: Path, result: ColourReconstruction) -> list[str]:
    module, _, name = PICTURE.partition(":")
    draw: Callable[..., list[str]] = getattr(importlib.import_module(module), name)
    return draw(folder, result)


def join(
    folder: Path, ended: Mapping[str, Mapping[str, Any]], warn: Callable[[str], object] = lambda text: None
) -> ColourReconstruction:
    """The colours in ``folder``/channels, by the documents of their runs, the longest wavelength first.

    The one in the middle is what the others are brought onto. What cannot be trusted is ``warn`` ed of.
    """
    results = {name: open_result(folder / CHANNELS_FOLDER / name) for name in ended}
    waves = {name: float(document["data"]["optics"]["wavelength_um"]) for name, document in ended.items()}
    names = sorted(ended, key=lambda name: -waves[name])
    reference = names[len(names) // 2]
    base = results[reference].grid
    grid = Grid(base.shape, base.extent_um, base.z_range)
    middles = {name: sum(one.grid.z_range) / 2 for name, one in results.items()}
    channels = []
    for name in names:
        where = registration.Placement()
        if name != reference:
            where = registration.register(_reader(results[reference]), _reader(results[name]), grid.shape)
            if where.correlation < registration.TRUSTED:
                warn(
                    f"channel {name} shows nothing that {reference} shows too (correlation {where.correlation:.2f}): "
                    "it is not moved; is it of the same field, and in focus?"
                )
        channels.append(
            Channel(
                name, str(ended[name]["result_sha256"]), int(ended[name]["stored_bytes"]),
                middles[name] - middles[reference], waves[name], place=where,
            )
        )  # fmt: skip
    found = ColourReconstruction(channels, reference, grid, folder=folder)
    white, share = _white(found)
    if share < clear.SHARE:
        warn(
            f"only {share:.1%} of the field are clear in all colours: white is the brightest of each, and the colours "
            "may be off; choose a field with a place beside the sample"
        )
    channels = [replace(one, white=level) for one, level in zip(channels, white, strict=True)]
    known = results[reference].metadata
    found = ColourReconstruction(channels, reference, grid, folder=folder, metadata=dict(known))
    found.metadata["wavelength_um"] = waves[reference]
    found.calibration = results[reference].calibration
    return found


def _reader(result: Reconstruction) -> registration.Read:
    z_um = sum(result.grid.z_range) / 2

    def read(box: Box) -> Any:
        return result.part(z_um, box)

    return read


def _white(result: ColourReconstruction) -> tuple[list[float], float]:
    """Of each colour, by a picture of at most about a thousand pixels along a side."""
    level = max(0, math.ceil(math.log2(max(result.grid.shape) / 1024)))
    z_um = sum(result.grid.z_range) / 2
    whole = (0, 0, *result.grid.shape)
    return clear.white([np.sqrt(result.intensity(name, z_um, whole, level)) for name in result.channels])


def _described(ended: Mapping[str, dict[str, Any]], result: ColourReconstruction) -> dict[str, Any]:
    """What is to be told of all colours together; numbers are means over them, times and steps sums."""
    main = ended[result.reference]
    about = {name: main[name] for name in SHARED}
    about |= {name: sum(document[name] for document in ended.values()) for name in ADDED}
    names = dict.fromkeys(str(document["data"]["name"]) for document in ended.values())
    about["data"] = {**main["data"], "name": " + ".join(names)}
    about["times"] = {
        key: sum(document["times"].get(key, 0.0) for document in ended.values()) for key in ("setup_s", "solve_s")
    }
    about["peak_memory_mb"] = max(document["peak_memory_mb"] for document in ended.values())
    about["stored_bytes"] = result.stored_bytes
    about["dense_ratio"] = about["dense_bytes"] / result.stored_bytes
    values = {key: [document["metrics"].get(key) for document in ended.values()] for key in main["metrics"]}
    about["metrics"] = {
        key: float(np.mean(found))
        for key, found in values.items()
        if all(isinstance(one, int | float) for one in found)
    }
    about["missing"] = {f"{name}: {k}": v for name, document in ended.items() for k, v in document["missing"].items()}
    about["channels"] = {
        one.name: {
            "wavelength_um": one.wavelength_um,
            "upsample": round(result.grid.shape[0] / main["data"]["image_shape"][0]),
            "sha256": one.sha256,
            "status": ended[one.name]["status"],
            "z_um": ended[one.name]["z_um"],
            "white": one.white,
            "shift_px": list(one.place.shift),
            "scale": one.place.scale,
            "correlation": one.place.correlation,
            "metrics": ended[one.name]["metrics"],
        }
        for one in result.parts.values()
    }
    about["reference"] = result.reference
    return about
