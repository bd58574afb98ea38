"""Options that several commands share, and the kinds of value they take."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fpmtools.cli import _complete
from fpmtools.errors import OptionError, unknown

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset
    from fpmtools.reconstruction import Reconstruction

BUILT_IN = "sim:tilted"
MOST_PLANES = 100_000

Command = TypeVar("Command", bound=Callable[..., Any])


def _margin(context: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    return value if value in (None, "auto") else click.IntRange(min=0)(value, option, context)


def tiles(context: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    """``auto``, or pixels."""
    return value if value in (None, "auto") else click.IntRange(min=1)(value, option, context)


def planes(text: str) -> tuple[float, ...]:
    """``MIN:MAX:COUNT``, or numbers separated by commas → z in µm, ascending."""
    try:
        if ":" in text:
            low, high, count = (kind(part) for kind, part in zip((float, float, int), text.split(":"), strict=True))
            if not 2 <= count <= MOST_PLANES:
                raise ValueError
            z_um = tuple(low + (high - low) * i / (count - 1) for i in range(int(count)))
        else:
            z_um = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--z {text}: give MIN:MAX:COUNT (such as -10:10:21), or one or more z in µm") from None
    if not all(map(math.isfinite, z_um)) or any(a >= b for a, b in itertools.pairwise(z_um)):
        raise OptionError(f"--z {text}: the planes must be finite and ascending")
    return z_um


def integers(names: str) -> Callable[[str], tuple[int, ...]]:
    """A parser of comma-separated whole numbers, as many as there are ``names`` (such as ``Y,X,H,W``)."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != len(names.split(",")) or min(numbers) < 0:
            raise OptionError(f"{text!r} is not {names} in whole numbers")
        return numbers

    return parse


def key_value(text: str) -> tuple[str, str]:
    """``key=value``."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise OptionError(f"{text!r} is not key=value")
    return key, value


DURATIONS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}


def quantity(option: str, units: Mapping[str, float], example: str) -> Callable[[str], float]:
    """A parser of a positive number with one of the units, such as 60s, 2m or 4GB; the unit is read in any case."""
    factors = {unit.lower(): factor for unit, factor in units.items()}

    def parse(text: str) -> float:
        found = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]*)", text.strip())
        try:
            value = float(found[1]) * factors[found[2].lower()] if found else math.nan
        except (ValueError, KeyError):
            value = math.nan
        if not 0 < value < math.inf:
            raise OptionError(f"{option} {text}: give a positive number and a unit, such as {example}")
        return value

    return parse


def several(text: str) -> list[str]:
    """Names separated by commas; a file whose own name has one is one name."""
    return [text] if os.path.exists(text) else [part for part in text.split(",") if part.strip()]


def targets(text: str) -> dict[str, float]:
    """``psnr=25``, or several with commas → what to reach."""
    found = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            found[name] = float(value)
        except ValueError:
            raise OptionError(f"--target {part}: give {name}=NUMBER, such as psnr=25") from None
    return found


def seeds(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas, each once."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (-1,)
    if min(found) < 0 or len(set(found)) < len(found):
        raise OptionError(f"--seeds {text}: give different whole numbers, such as 0,1,2")
    return found


def channels(text: str) -> tuple[Any, ...]:
    """Colours, each ``NAME``, ``NAME=µm``, ``NAME:DATA`` or ``NAME:DATA=µm``."""
    from fpmtools.runs.spec import ChannelSpec

    found = []
    for word in text.split(","):
        named, _, wave = word.strip().rpartition("=")
        try:
            wavelength_um = float(wave) if named else None
        except ValueError:
            raise OptionError(f"--channels {word}: {wave!r} is no wavelength in µm, such as 0.532") from None
        name, _, source = (named or wave).partition(":")
        found.append(ChannelSpec(name, absolute(source) if source else None, wavelength_um=wavelength_um))
    return tuple(found)


def optics_value(text: str) -> tuple[str, float]:
    """``key=value`` of a number of the microscope."""
    from fpmtools.formats.numbers import OPTICS

    key, value = key_value(text)
    if key not in OPTICS:
        raise unknown("number of the optics", key, OPTICS)
    try:
        return key, float(value)
    except ValueError:
        raise OptionError(f"--optics {text}: {value!r} is not a number") from None


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")
verbose_option = click.option(
    "--verbose", "-v", is_flag=True, help="Show on stderr what the log of a run says, line by line."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress.")
force_option = click.option("--force", is_flag=True, help="Replace what is there.")

reading_options = _all_of(
    click.option("--config", metavar="FILE", help="YAML with the numbers of a set-up, named like these options."),
    click.option("--format", metavar="NAME", help="Reader to use (default: found out from the content)."),
    click.option("--key", metavar="NAME", help="Array that holds the images, in a file with several."),
    click.option("--channel", metavar="NAME|INDEX", help="Colour channel of colour images."),
    click.option(
        "--bayer", metavar="RGGB", help="The images are a colour camera's, unprocessed: the first 2 × 2 pixels."
    ),
    click.option("--roi", type=integers("Y,X,H,W"), metavar="Y,X,H,W", help="Region of interest in camera pixels."),
    click.option("--leds", metavar="FILE|RULE", help="LED positions: a CSV or JSON file, or a rule."),
    click.option("--axes", metavar="X,Y", help="Board axes that run along the image's x and y, such as -y,x."),
    click.option("--patterns", metavar="FILE", help="Which LEDs light an image: a line per image, a weight per LED."),
    click.option("--leds-use", metavar="LIST", help="Images to use: numbers from 0, as in 0-48,60; or bright or dark."),
    click.option("--max-na", type=float, metavar="NA", help="Use only images that are lit from within this NA."),
    click.option("--dark-level", type=float, metavar="COUNTS", help="Camera offset to subtract from every pixel."),
    click.option("--dark", metavar="FILE", help="Image without light to subtract (default: dark.tif among them)."),
    click.option(
        "--amplitudes", is_flag=True, default=None, help="The data are amplitudes, not intensities: square them."
    ),
    click.option(
        "--optics",
        type=optics_value,
        metavar="KEY=VALUE",
        multiple=True,
        help="A number of the microscope, such as wavelength_um=0.523.",
    ),
)
data_options = _all_of(
    click.option(
        "--data",
        metavar="NAME|PATH",
        default=BUILT_IN,
        show_default=True,
        shell_complete=_complete.data,
        help="Data set to use.",
    ),
    reading_options,
)
solving_options = _all_of(
    click.option(
        "--z",
        "z_um",
        type=planes,
        metavar="MIN:MAX:COUNT|Z,…",
        help="Planes to reconstruct in µm, or one z (default: where the sample is known to be).",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads (default: all, or 1 for small problems).",
    ),
    click.option(
        "--budget",
        "budget_s",
        type=quantity("--budget", DURATIONS, "60s or 2m"),
        metavar="TIME",
        help="Stop a solver after this long, such as 60s or 2m.",
    ),
    click.option(
        "--target",
        "targets",
        type=targets,
        metavar="psnr=DB|ssim=S",
        multiple=True,
        callback=lambda context, parameter, found: {k: v for some in found for k, v in some.items()},
        help="Stop a solver when it has reached this (all, if several); needs a truth.",
    ),
    click.option(
        "--no-tracking",
        "track",
        flag_value=False,
        default=True,
        help="Do not measure quality on the way (the clock stands still for it, but you wait).",
    ),
    # The rest are named like the arguments of fpmtools.problem.prepare.
    click.option("--device", metavar="NAME", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--dtype",
        type=click.Choice(["complex64", "complex128"]),
        default="complex64",
        show_default=True,
        help="Precision of the fields.",
    ),
    click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Random seed."),
    click.option(
        "--upsample",
        type=click.FloatRange(min=1),
        metavar="FACTOR",
        help="Output pixels per camera pixel, along each axis.",
    ),
    click.option(
        "--no-critical-grid",
        "critical_grid",
        flag_value=False,
        default=None,
        help="Solve on the full output grid, not on the smallest sufficient one.",
    ),
    click.option(
        "--pixel-rounding",
        "subpixel",
        flag_value=False,
        default=None,
        help="Round each LED's shift to the Fourier grid.",
    ),
    click.option(
        "--margin",
        callback=_margin,
        metavar="N|auto",
        help="Camera pixels beyond each border that are solved and not shown (default: as calibrating finds).",
    ),
    click.option(
        "--exact",
        is_flag=True,
        help="Store every digit of a stack of planes, not only what the images can tell.",
    ),
    click.option(
        "--calibration",
        metavar="auto|nominal|FILE",
        help="What is known of the instrument: as the images say (default), as the data say, or a file.",
    ),
    click.option(
        "--calibrate",
        metavar="auto|none|NAME,...",
        default="auto",
        show_default=True,
        help="What is fitted with the object: board, pupil, gain, background …; kept where left-out LEDs agree.",
    ),
    click.option("--trust-leds", is_flag=True, help="The same as --calibration nominal."),
    click.option(
        "--loss", metavar="NAME", help="What is minimised: amplitude, poisson or feature (default: solver's)."
    ),
)
result_options = _all_of(
    click.option(
        "--out", type=click.Path(path_type=Path), metavar="DIR", help="Result folder (default: a new one in out)."
    ),
    force_option,
    quiet_option,
    verbose_option,
    click.option(
        "--progress",
        type=click.Choice(["auto", "json"]),
        default="auto",
        show_default=True,
        help="What is shown on stderr: a bar or plain lines, or JSON lines.",
    ),
    json_option,
)


READING = (
    "config", "format", "key", "channel", "bayer", "roi", "leds", "axes", "patterns", "leds_use", "max_na",
    "dark_level", "dark", "amplitudes", "optics",
)  # fmt: skip
_PATHS = ("config", "leds", "patterns", "dark")  # may be paths, and are then as seen from anywhere


def take_reading(choices: dict[str, Any]) -> dict[str, Any]:
    """Take the values of the reading options out of ``choices``."""
    reading = {name: choices.pop(name) for name in READING}
    for name in _PATHS:
        if reading[name] is not None and os.path.exists(reading[name]):
            reading[name] = os.path.abspath(reading[name])
    return {**reading, "optics": dict(reading["optics"])}


def spelled(reading: Mapping[str, Any]) -> list[str]:
    """The words that give the reading options these values, such as :func:`take_reading` took."""
    words = []
    for name, value in reading.items():
        option = f"--{name.replace('_', '-')}"
        if name == "optics":
            words += [word for key, number in value.items() for word in (option, f"{key}={number:g}")]
        elif value is True:
            words.append(option)
        elif value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
            words += [option, f"{text:g}" if isinstance(text, float) else str(text)]
    return words


def take_calibration(choices: dict[str, Any]) -> str:
    """Take what says which calibration is used out of ``choices``."""
    calibration, trust_leds = choices.pop("calibration"), choices.pop("trust_leds")
    return calibration or ("nominal" if trust_leds else "auto")


def absolute(data: str) -> str:
    """A path as seen from anywhere; what is no path, or the name of a known data set, as it is."""
    from fpmtools.formats import manifest

    if not os.path.exists(data) or any(entry.name == data for entry in manifest.entries()):
        return data
    return os.path.abspath(data)


def load(data: str, reading: dict[str, Any]) -> Dataset:
    """The data set called ``data``, read as the reading options say."""
    from fpmtools import formats

    return formats.load(data, **reading)


def one_plane(reconstruction: Reconstruction, result: Path) -> float:
    """The z of a ``result`` that has one, µm."""
    low, high = reconstruction.grid.z_range
    if low != high:
        raise OptionError(f"{result} covers z from {low:g} to {high:g} µm: say which with --z")
    return low


def given() -> list[str]:
    """Names of the parameters that the user has given a value to."""
    context = click.get_current_context()
    said = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    return [name for name in context.params if context.get_parameter_source(name) in said]


def flag(name: str) -> str:
    """How the command line spells a parameter."""
    return next(max(p.opts, key=len) for p in click.get_current_context().command.params if p.name == name)
