"""One self-contained ``report.html`` of a comparison or a run, which opens from disk and needs no network.

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
from fpmtools.report import html_images, html_instrument, html_run, html_sections
from fpmtools.report.html_folder import Folder
from fpmtools.report.html_templates import templates

REPORT_FILE = "report.html"


def write(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a comparison or a run, from what is in it, and return its path.

    Raises
    ------
    DataError
        The folder holds neither, or a run without a result.
    OutputError
        The disk is full or the folder cannot be written.
    """
    found = html_run.read(folder)
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
            microscopes=_microscopes(folder),
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            style=_asset("report.css"),
            sections=html_sections.all_of(folder, galleries),
            viewer=storage.finite(_viewer(galleries)),
            script=script,
            version=fpmtools.__version__,
        )
    )


def _viewer(galleries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Without the error maps, which stand on the page itself."""
    used = {scale["colours"] for gallery in galleries for scale in gallery["scales"].values()}
    shown = [
        {**gallery, "sources": [{k: v for k, v in one.items() if k != "error_map"} for one in gallery["sources"]]}
        for gallery in galleries
    ]
    return {"galleries": shown, "palettes": {name: html_images.palette(name) for name in sorted(used)}}


def _microscopes(folder: Folder) -> list[dict[str, str]]:
    """A line for each data set, with its name; one without where all were measured alike."""
    said = {data: html_instrument.microscope(folder.of(data)) for data in folder.datasets}
    different = {words for words in said.values() if words}
    if len(different) == 1:
        return [{"data": "", "words": different.pop()}]
    return [{"data": data, "words": words} for data, words in said.items() if words]


def _about(folder: Folder) -> list[str]:
    """What by, when and on what machine, as far as the runs say."""
    created = next((str(made) for row in folder.rows if (made := row.recorded("created"))), "")
    hardware = next((found for row in folder.rows if isinstance(found := row.recorded("hardware"), dict)), {})
    by = str(folder.document.get("solver") or ", ".join(folder.solvers))
    parts = [by, created[:10], str(hardware.get("device_name") or "")]
    return [part for part in parts if part]


def _asset(name: str) -> Markup:
    """A file of our own, which goes into the page as it is."""
    return Markup((resources.files("fpmtools.report") / name).read_text(encoding="utf-8"))
