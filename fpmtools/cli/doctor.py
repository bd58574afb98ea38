"""``fpmtools doctor``: is everything here that a run needs?"""

from __future__ import annotations

import os
import platform
import shutil
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import fpmtools
from fpmtools.cli._inputs import json_option
from fpmtools.cli._output import echo, print_json
from fpmtools.errors import FpmError

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "h5py",
    "mat73",
    "scikit-image",
    "pluggy",
    "tifffile",
    "matplotlib",
)


@click.command(short_help="Check the installation.")
@json_option
def doctor(as_json: bool) -> int:
    """Check versions, devices, plugins, data folder and disk. Exit code 1 when something is broken."""
    from fpmtools import registry

    problems: list[str] = []
    with registry.asker() as ready:
        looking = threading.Thread(target=registry.faults, daemon=True)  # takes long where plugins hang, and torch too
        looking.start()
        about = {
            "fpmtools": fpmtools.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "packages": _packages(problems),
            **_compute(problems),
            **_plugins(problems, looking, ready),
            **_storage(problems),
            "problems": problems,
        }
    if as_json:
        print_json(about)
    else:
        _print(about)
    return 1 if problems else 0


def _packages(problems: list[str]) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
            problems.append(f"package {name} is not installed: pip install {name}")
    return versions


def _compute(problems: list[str]) -> dict[str, Any]:
    try:
        import torch

        devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
        ones = torch.ones(4, 6, dtype=torch.complex64)
        if not torch.allclose(torch.fft.ifft2(torch.fft.fft2(ones, dim=(-2, -1)), dim=(-2, -1)), ones):
            problems.append("torch's Fourier transform gives wrong numbers here")
        return {"devices": devices, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    except (ImportError, OSError, RuntimeError) as error:
        problems.append(f"torch cannot be used: {' '.join(str(error).split())}")
        return {"devices": [], "threads": None, "cores": os.cpu_count()}


def _plugins(problems: list[str], looking: threading.Thread, ready: Any) -> dict[str, Any]:
    """Each solver's class is imported too: that is where most plugins break."""
    from fpmtools import registry

    looking.join()
    listed = registry.solvers()
    described = registry.describe_solvers(((supplied.record.name, {}) for supplied in listed), ready)
    working = {}
    for supplied, found in zip(listed, described, strict=True):
        if isinstance(found, FpmError):
            problems.append(str(found))
        else:
            working[supplied.record.name] = str(supplied)
    problems.extend(str(fault) for fault in registry.faults())
    if not working:
        problems.append("no solver is installed: reinstall fpmtools")
    return {"solvers": working}


def _storage(problems: list[str]) -> dict[str, Any]:
    from fpmtools.formats import manifest

    folder = next(iter(manifest.data_dirs()), None)
    if folder is None:
        problems.append("there is no home folder to keep data in: set FPMTOOLS_DATA to a folder")
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        problems.append(f"the current folder {here} cannot be written")
    free_gb = shutil.disk_usage(here).free / 1e9
    if free_gb < 1:
        problems.append(f"only {free_gb:.2f} GB are free in {here}")
    return {
        "data_folder": folder and str(folder),
        "data_folder_exists": folder is not None and folder.is_dir(),
        "disk_free_gb": round(free_gb, 2),
    }


def _print(about: dict[str, Any]) -> None:
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in about["packages"].items())
    solvers = ", ".join(f"{name} ({source})" for name, source in about["solvers"].items())
    exists = "" if about["data_folder_exists"] else " (not there yet)"
    for label, text in {
        "fpmtools": about["fpmtools"],
        "Python": f"{about['python']} on {about['system']}",
        "packages": packages,
        "devices": ", ".join(about["devices"]) or "none",
        "threads": f"{about['threads']} of {about['cores']} cores",
        "solvers": solvers or "none",
        "data": f"{about['data_folder']}{exists}",
        "disk": f"{about['disk_free_gb']:g} GB free here",
    }.items():
        echo(f"{label:<9} {text}")
    for problem in about["problems"]:
        echo(f"problem   {problem}")
    echo("\nAll is well." if not about["problems"] else f"\n{len(about['problems'])} problem(s).")
