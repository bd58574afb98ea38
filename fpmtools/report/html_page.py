"""One self-contained ``report.html`` of a comparison, which opens from disk and needs no network.

The templates escape every string that comes from data, plugins or files. On top of that, the page's content security
policy lets only the page's own script run, by its hash, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

import fpmtools
from fpmtools import storage
from fpmtools.report import html_folder, html_images, html_sections
from fpmtools.report.contrast import FULL_CIRCLE
from fpmtools.report.html_folder import Folder
from fpmtools.report.html_templates import templates

REPORT_FILE = "report.html"


def write(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a comparison, from what is in it, and return its path.

    Raises
    ------
    DataError
        The folder holds no comparison.
    OutputError
        The disk is full or the folder cannot be written.
    """
    found = html_folder.read(folder)
    return storage.write_bytes(found.path / REPORT_FILE, page(found).encode("utf-8", "replace"))


def page(folder: Folder) -> str:
    """The whole page."""
    galleries = html_images.galleries(folder)
    script = _asset("viewer.js") + _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        templates()
        .get_template("report.html")
        .render(
            title=", ".join(folder.datasets),
            about=_about(folder),
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            style=_asset("report.css"),
            sections=html_sections.all_of(folder, galleries),
            viewer=storage.finite(_viewer(galleries)),
            script=script,
            version=fpmtools.__version__,
        )
    )


def _viewer(galleries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    palettes = {"phase": FULL_CIRCLE.cmap, "error": html_images.ERROR_MAP}
    return {
        "galleries": galleries,
        "palettes": {quantity: html_images.palette(name) for quantity, name in palettes.items()},
    }


def _about(folder: Folder) -> list[str]:
    """What by, when and on what machine, as far as the runs say."""
    created = next((str(made) for row in folder.rows if (made := row.recorded("created"))), "")
    hardware = next((found for row in folder.rows if isinstance(found := row.recorded("hardware"), dict)), {})
    parts = [", ".join(folder.solvers), created[:10], str(hardware.get("device_name") or "")]
    return [part for part in parts if part]


def _asset(name: str) -> Markup:
    """A file of our own, which goes into the page as it is."""
    return Markup((resources.files("fpmtools.report") / name).read_text(encoding="utf-8"))
