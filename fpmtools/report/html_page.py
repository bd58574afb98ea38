"""One self-contained ``report.html`` of a comparison, which opens from disk and needs no network.

Every string that comes from data, plugins or files is escaped. On top of that, the page's content security policy lets
only the page's own script run, by its hash, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import fpmtools
from fpmtools import storage
from fpmtools.dataset import Dataset
from fpmtools.report import html_folder, html_images, html_sections
from fpmtools.report.contrast import FULL_CIRCLE
from fpmtools.report.html_folder import Evidence
from fpmtools.report.html_sections import none, per_data_set

REPORT_FILE = "report.html"


def write(folder: str | Path, datasets: Iterable[Dataset] = ()) -> Path:
    """Write ``report.html`` into the folder of a comparison, from what is in it, and return its path.

    The truths of ``datasets`` are first kept in the folder, so that the report can be rebuilt without them.

    Raises
    ------
    DataError
        The folder holds no comparison.
    OutputError
        The disk is full or the folder cannot be written.
    """
    for dataset in datasets:
        html_folder.save_truth(folder, dataset)
    evidence = html_folder.read(folder)
    return storage.write_bytes(evidence.folder / REPORT_FILE, page(evidence).encode("utf-8", "replace"))


def page(evidence: Evidence) -> str:
    """The whole page."""
    galleries = html_images.galleries(evidence)
    sections = {
        "Summary": html_sections.summary(evidence),
        "Images": _asset("viewer.html") if galleries else none(_no_images(evidence)),
        "Error maps": html_sections.error_maps(galleries),
        "Quality over time": per_data_set(evidence, html_sections.quality_over_time),
        "Storage": per_data_set(evidence, html_sections.storage),
        "Ring correlation": per_data_set(evidence, html_sections.ring_correlation),
        "Convergence": per_data_set(evidence, html_sections.convergence),
        "Failures": html_sections.failures(evidence),
        "Reproduce": html_sections.reproduce(evidence),
    }
    script = _asset("viewer.js") + _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = ", ".join(evidence.datasets)
    return Template(_asset("report.html")).substitute(
        title=escape(names),
        about=_about(evidence),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=_asset("report.css"),
        links="".join(f'<a href="#{_id(title)}">{title}</a>' for title in sections),
        sections="".join(_section(title, content) for title, content in sections.items()),
        data=_json_in_html(_viewer(galleries)),
        script=script,
        version=escape(fpmtools.__version__),
    )


def _viewer(galleries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    palettes = {"phase": FULL_CIRCLE.cmap, "error": html_images.ERROR_MAP}
    return {
        "galleries": galleries,
        "palettes": {quantity: html_images.palette(name) for quantity, name in palettes.items()},
    }


def _section(title: str, content: str) -> str:
    name = _id(title)
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")


def _about(evidence: Evidence) -> str:
    """When and on what machine, as far as the runs say."""
    entries = evidence.entries
    created = next((str(made) for entry in entries if (made := entry.recorded("created"))), "")
    hardware = next((found for entry in entries if isinstance(found := entry.recorded("hardware"), dict)), {})
    parts = [", ".join(evidence.solvers), created[:10], str(hardware.get("device_name") or "")]
    return " · ".join(f"<bdi>{escape(part)}</bdi>" for part in parts if part)


def _no_images(evidence: Evidence) -> str:
    reasons = [f"{entry.name}: {entry.rendered}" for entry in evidence.entries]
    return f"No solver has a result that can be shown. {'; '.join(reasons)}"


def _json_in_html(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(storage.finite(value), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (resources.files("fpmtools.report") / name).read_text(encoding="utf-8")
