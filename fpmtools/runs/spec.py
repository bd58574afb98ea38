"""What is to be run, in full, as data: the same words in Python, in JSON and in every run's ``run.json``.

Imports neither torch nor NumPy, so that a mistake in a name is found before anything heavy is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fpmtools import threads
from fpmtools.errors import DataError, OptionError, unknown

SCHEMA = 1
TARGETS = ("psnr", "ssim")  # of both, more is better
PICTURES = ("files", "report")  # in the run's own folder; what a comparison's report draws
LOSSES = ("amplitude", "poisson", "feature")
DTYPES = ("complex64", "complex128")
AUTO = "auto"  # a margin
CALIBRATE = ("auto", "none")
# Of what can be calibrated.
GROUPS = (
    "focus", "background", "exposure", "board", "pupil", "apodization", "gain", "jitter", "stray", "vignetting"
)  # fmt: skip
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
CHANNEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._+-]{0,38}[A-Za-z0-9+_-])?")  # is the name of a folder too

PARTS: dict[str, type[Any]] = {}  # of a spec, by the names of their fields


def _need(valid: object, name: str, value: object, form: str) -> None:
    if not valid:
        raise OptionError(f"{name} {_shown(value)} is not {form}")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a number of more than 4300 digits has none
        text = f"({type(value).__name__})"
    return text if len(text) < 100 else f"{text[:100]} …"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _is_words(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(word, str) for word in value)


def _is_words_to(value: object, valid: Callable[[object], bool]) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and valid(v) for k, v in value.items())


def _check_texts(part: object, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        _need(value is None or isinstance(value, str), name, value, "text")


def ways(calibrate: str) -> list[str]:
    """What a comparison takes the instrument as: "none,auto" is as given and as found, anything else is one way."""
    words = list(dict.fromkeys(calibrate.split(",")))
    return words if set(words) == set(CALIBRATE) else [calibrate]


@dataclass(frozen=True)
class DataSpec:
    """Which data: what ``fpmtools.load`` takes, as ``source`` and how it is read.

    ``digest`` (:attr:`Dataset.digest`), where it is given, is what the data must turn out to be.
    """

    source: str
    config: str | None = None
    format: str | None = None
    key: str | None = None
    channel: str | int | None = None
    bayer: str | None = None
    roi: tuple[int, ...] | None = None
    leds: str | None = None
    axes: str | None = None
    patterns: str | None = None
    leds_use: str | None = None
    max_na: float | None = None
    dark_level: float | None = None
    dark: str | None = None
    amplitudes: bool | None = None
    optics: Mapping[str, float] = field(default_factory=dict)
    digest: str | None = None

    def __post_init__(self) -> None:
        _need(isinstance(self.source, str) and self.source, "the data's source", self.source, "a name or a path")
        texts = ("config", "format", "key", "bayer", "leds", "axes", "patterns", "leds_use", "dark", "digest")
        _check_texts(self, *texts)
        _need(
            self.channel is None or isinstance(self.channel, str | int), "channel", self.channel, "a name or a number"
        )
        if self.roi is not None:
            object.__setattr__(self, "roi", _tuple("roi", self.roi))
            _need(
                len(self.roi) == 4 and all(map(_is_whole, self.roi)), "roi", self.roi, "four whole numbers y, x, h, w"
            )
        for name in ("dark_level", "max_na"):
            value = getattr(self, name)
            _need(value is None or _is_number(value), name, value, "a number")
        _need(isinstance(self.amplitudes, bool | None), "amplitudes", self.amplitudes, "true or false")
        _need(_is_words_to(self.optics, _is_number), "optics", self.optics, "names with numbers")


@dataclass(frozen=True)
class Limits:
    """When a run ends before its solver does: after ``budget_s`` of solving, or with all ``targets`` reached."""

    budget_s: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        budget_s = self.budget_s
        _need(budget_s is None or (_is_number(budget_s) and budget_s > 0), "budget_s", budget_s, "a positive number")
        _need(isinstance(self.targets, Mapping), "targets", self.targets, "names with numbers")
        for name, value in self.targets.items():
            if name not in TARGETS:
                raise unknown("target", str(name), TARGETS)
            _need(_is_number(value), f"target {name}:", value, "a number, such as psnr=25")
            if name == "ssim" and value > 1:
                raise OptionError(f"target {name}={value:g} cannot be reached")


@dataclass(frozen=True)
class Outputs:
    """What is found out besides the result; nothing here changes it.

    ``track``: quality on the way, where there is a truth. ``measures``: metrics by name, and the curves of
    :mod:`fpmtools.runs.tasks`; None for the usual ones. ``pictures``: some of :data:`PICTURES`. ``warm_up``: a few
    steps are taken and thrown away before the clock starts, so that it does not count what happens only once.
    """

    track: bool = True
    measures: tuple[str, ...] | None = None
    pictures: tuple[str, ...] = ("files",)
    warm_up: bool = False

    def __post_init__(self) -> None:
        for name in ("track", "warm_up"):
            _need(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        if self.measures is not None:
            object.__setattr__(self, "measures", _tuple("measures", self.measures))
            _need(_is_words(self.measures), "measures", self.measures, "a list of names")
        object.__setattr__(self, "pictures", _tuple("pictures", self.pictures))
        for name in self.pictures:
            if name not in PICTURES:
                raise unknown("pictures", str(name), PICTURES)


@dataclass(frozen=True)
class TilesSpec:
    """That a field is solved in tiles: camera pixels along the side of one, and those that neighbours share.

    None: as the optics ask for, see :mod:`fpmtools.tiling.plan`.
    """

    size: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "overlap"):
            value = getattr(self, name)
            _need(value is None or _is_whole(value, 1), f"tiles.{name}", value, "a positive whole number of pixels")
        if self.size is not None and self.overlap is not None and self.overlap >= self.size:
            raise OptionError(f"an overlap of {self.overlap} pixels needs tiles larger than that, not of {self.size}")


@dataclass(frozen=True)
class ChannelSpec:
    """One colour of a sample, solved by a run of its own.

    Parameters
    ----------
    name
        What it is called, and its folder too.
    source
        Where its images are; None: with those of the others, as the colour ``channel`` of them (None: of its name).
    wavelength_um
        Of its light; None: as its images say.
    digest
        What its data must turn out to be, see :class:`DataSpec`.
    """

    name: str
    source: str | None = None
    channel: str | int | None = None
    wavelength_um: float | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        sound = isinstance(self.name, str) and CHANNEL.fullmatch(self.name)
        _need(sound, "channel", self.name, "a name of letters, digits, blanks and ._+- (40 at most)")
        _check_texts(self, "source", "digest")
        known = self.channel is None or isinstance(self.channel, str | int)
        _need(known, f"channel {self.name}: channel", self.channel, "a name or a number")
        wave = self.wavelength_um
        _need(
            wave is None or (_is_number(wave) and 0.05 <= wave <= 20), f"channel {self.name}: wavelength_um", wave,
            "a wavelength in µm, such as 0.532",
        )  # fmt: skip


PARTS |= {"data": DataSpec, "limits": Limits, "outputs": Outputs, "tiles": TilesSpec}


@dataclass(frozen=True)
class RunSpec:
    """One run in full.

    ``options`` are the solver's, as text or typed, on top of the ``preset``. ``z_um`` None: where the sample is known
    to be. ``calibration``: "auto" (what the images say of the instrument), "nominal" (what the data say), or a file.
    ``calibrate``: what is fitted from there on, together with the object: "auto" for all of it, "none", or some of
    :data:`GROUPS` with commas between them; only what left-out images confirm is kept. ``loss`` None: the solver's own.
    ``exact``: a stack of planes is stored to all digits. ``tiles``: None solves the field in one piece. ``channels``:
    colours that are solved each by itself, as ``data`` says but for what their :class:`ChannelSpec` says otherwise.
    The rest is as in :func:`fpmtools.problem.prepare`; None leaves it to the solver or the problem. Raises
    :class:`OptionError` for a value of the wrong kind.
    """

    data: DataSpec
    solver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    z_um: tuple[float, ...] | None = None
    calibration: str = "auto"
    calibrate: str = "auto"
    loss: str | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "complex64"
    upsample: float | None = None
    critical_grid: bool | None = None
    subpixel: bool | None = None
    margin: int | str | None = None
    curved: bool = False
    exact: bool = False
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    outputs: Outputs = field(default_factory=Outputs)
    tiles: TilesSpec | None = None
    channels: tuple[ChannelSpec, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.data, str | Path):
            object.__setattr__(self, "data", DataSpec(str(self.data)))
        for name, kind in PARTS.items():
            value = getattr(self, name)
            absent = name == "tiles" and value is None
            _need(absent or isinstance(value, kind), name, value, f"a {kind.__name__}")
        _need(isinstance(self.solver, str) and self.solver, "solver", self.solver, "a name")
        simple = (str, int, float, bool, type(None))
        _need(_is_words_to(self.options, lambda v: isinstance(v, simple)), "options", self.options, "names with values")
        _check_texts(self, "preset", "loss", "calibration", "calibrate", "dtype", "device")
        if self.z_um is not None:
            z_um = (self.z_um,) if _is_number(self.z_um) else self.z_um
            object.__setattr__(self, "z_um", tuple(float(z) if _is_number(z) else z for z in _tuple("z_um", z_um)))
            rising = all(map(_is_number, self.z_um)) and all(
                a < b for a, b in zip(self.z_um, self.z_um[1:], strict=False)
            )
            _need(self.z_um and rising, "z_um", self.z_um, "one or more finite values in ascending order")
        if self.loss is not None and self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        _need(self.calibration, "calibration", self.calibration, "auto, nominal or a file")
        for group in (self.calibrate or "").split(",") if self.calibrate not in CALIBRATE else ():
            if group in CALIBRATE:
                raise OptionError(f"calibrate: {self.calibrate}: '{group}' stands alone, without other names")
            if group not in GROUPS:
                raise unknown("calibrate:", group, (*CALIBRATE, *GROUPS))
            if group == "focus" and self.z_um is not None:
                raise OptionError(
                    "calibrate: z says where the sample is, so the focus is not looked for; leave one out"
                )
        _need(_is_whole(self.seed), "seed", self.seed, "a whole number")
        if not DEVICE.fullmatch(self.device or ""):
            raise OptionError(f"unknown device {self.device!r}: use auto, cpu, cuda or cuda:N")
        if self.dtype not in DTYPES:
            raise OptionError(f"unknown dtype {self.dtype!r}: use complex64 or complex128")
        _need(self.upsample is None or _is_number(self.upsample), "upsample", self.upsample, "a number")
        sound = self.margin is None or _is_whole(self.margin) or self.margin == AUTO
        _need(sound, "margin", self.margin, "a whole number of pixels, or auto")
        for name in ("critical_grid", "subpixel"):
            value = getattr(self, name)
            _need(value is None or isinstance(value, bool), name, value, "true, false or null")
        for name in ("exact", "curved"):
            _need(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        _need(self.threads is None or _is_whole(self.threads, 1), "threads", self.threads, "a positive whole number")
        threads.check(self.threads)
        self._check_channels()

    def _check_channels(self) -> None:
        object.__setattr__(self, "channels", _tuple("channels", self.channels))
        sound = all(isinstance(one, ChannelSpec) for one in self.channels)
        _need(sound, "channels", self.channels, "a list of ChannelSpec")
        names = [one.name.lower() for one in self.channels]
        if twice := [one.name for one in self.channels if names.count(one.name.lower()) > 1]:
            raise OptionError(f"channels: {twice[0]} is there twice; name each once")
        if self.channels and self.data.channel is not None:
            raise OptionError("channel takes one colour of the images, channels takes several: give one of them")

    def of_channel(self, name: str) -> RunSpec:
        """The run of one of the :attr:`channels`."""
        one = next((channel for channel in self.channels if channel.name == name), None)
        if one is None:
            raise unknown("channel", str(name), [channel.name for channel in self.channels])
        channel = one.channel if one.source or one.channel is not None else one.name
        optics = {**self.data.optics, **({} if one.wavelength_um is None else {"wavelength_um": one.wavelength_um})}
        data = replace(
            self.data, source=one.source or self.data.source, channel=channel, optics=optics, digest=one.digest
        )
        return replace(self, data=data, channels=())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the schema's number."""
        return {"schema": SCHEMA, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, document: object) -> RunSpec:
        """Inverse of :meth:`to_dict`; :class:`OptionError` for an unknown key, a wrong value or another schema."""
        if not isinstance(document, dict):
            raise OptionError(f"a run is described by names with values, not by {type(document).__name__}")
        values = dict(document)
        if (schema := values.pop("schema", None)) != SCHEMA:
            raise OptionError(f"this run is described in schema {schema}; this fpmtools reads schema {SCHEMA}")
        if isinstance(values.get("data"), str):
            values["data"] = {"source": values["data"]}
        for name, kind in PARTS.items():
            if values.get(name) is not None:
                values[name] = _build(kind, values[name], f"{name}.")
        if isinstance(listed := values.get("channels"), list):
            values["channels"] = [_build(ChannelSpec, one, "channels.") for one in listed]
        spec: RunSpec = _build(cls, values, "")
        return spec

    @classmethod
    def read(cls, path: str | Path) -> RunSpec:
        """From a file that holds one, or from a run's ``run.json``: then with what was chosen there for "auto"."""
        document = read_json(path)
        if "spec" not in document:
            return cls.from_dict(document)
        return cls.from_dict(document["spec"]).resolved(document.get("resolved") or {})

    def resolved(self, chosen: Mapping[str, Any]) -> RunSpec:
        """With the number of threads, the device and the data's digest that a run of it has ``chosen``."""
        data = replace(self.data, digest=self.data.digest or chosen.get("digest"))
        digests = chosen.get("channels") or {}
        channels = tuple(replace(one, digest=one.digest or digests.get(one.name)) for one in self.channels)
        device = chosen.get("device", self.device) if self.device == "auto" else self.device
        count = self.threads or chosen.get("threads")
        return replace(self, data=data, channels=channels, device=device, threads=count)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the result: the run's identity."""
        decisive = self.to_dict()
        del decisive["outputs"]
        if self.data.digest is not None:  # then it does not matter where they are read
            decisive["data"] = self.data.digest
        decisive["options"] = {name: plain(value) for name, value in self.options.items()}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def differences(self, other: RunSpec) -> list[str]:
        """Names of what differs between the two, ``data.roi`` for instance."""
        return [name for name in names(RunSpec) if plain(value_of(self, name)) != plain(value_of(other, name))]


def data_of(record: Mapping[str, Any]) -> DataSpec:
    """Where the data of the run are that ``record`` (``run.json``) describes; of several colours the reference's.

    Raises :class:`OptionError` where it does not say.
    """
    spec = RunSpec.from_dict(record.get("spec"))
    return (spec.of_channel(str(record.get("reference"))) if spec.channels else spec).data


def names(kind: type[Any] = RunSpec) -> list[str]:
    """All names in a spec, dotted where they are in one of its parts."""
    return [f"{f.name}.{g.name}" for f in fields(kind) if f.name in PARTS for g in fields(PARTS[f.name])] + [
        f.name for f in fields(kind) if f.name not in PARTS
    ]


def value_of(spec: RunSpec, name: str) -> Any:
    """The value under a dotted name; None where there is no such part."""
    value: Any = spec
    for part in name.split("."):
        value = None if value is None else getattr(value, part)
    return value


def plain(value: Any) -> Any:
    """``value`` such that ``4``, ``4.0`` and ``"4"`` are the same, as they are in a command's words."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and math.isfinite(value):
        value = int(value)
    return value if value is None else str(value).strip().lower()


def read_json(path: str | Path) -> dict[str, Any]:
    """A JSON file that holds names with values; :class:`DataError` in one line for anything else."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({str(error)[:100] or 'nested too deeply'})") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: holds {type(document).__name__}, not the description of a run")
    return document


def _tuple(name: str, value: object) -> tuple[Any, ...]:
    _need(isinstance(value, list | tuple), name, value, "a list")
    return tuple(value)  # type: ignore[arg-type]


def _build(kind: Callable[..., Any], values: object, where: str) -> Any:
    if not isinstance(values, dict):
        raise OptionError(f"{where.rstrip('.')} must hold names with values, not {type(values).__name__}")
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise unknown("key of a run's description:", f"{where}{str(name)[:100]}", [f"{where}{k}" for k in known])
    needed = [f.name for f in fields(kind) if f.default is f.default_factory]  # type: ignore[arg-type]
    for name in needed:
        if name not in values:
            raise OptionError(f"the description of a run needs {where}{name}")
    return kind(**values)
