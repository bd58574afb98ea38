"""The documentation site: built without a warning, but for the gallery's pictures, and loading nothing from elsewhere.

``make docs`` runs the gallery as well. Its notebook, a folder of TIFFs to a calibrated comparison, is run here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from selenium.webdriver import Chrome

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "gallery" / "8_own_images.py"
LOADING = {
    "script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "link": "href",
}  # fmt: skip
SHORTER = {  # of the notebook
    "raster(9, 9, 5.0)": "raster(7, 7, 6.5)",
    '"ny": 9, "nx": 9, "pitch_mm": 5,': '"ny": 7, "nx": 7, "pitch_mm": 6.5,',
}
NOT_LOADED = {"next", "prev", "search", "index", "author", "copyright", "license", "canonical"}  # links to other pages

pytest.importorskip("sphinx")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docs/, built in a copy of the repository's texts."""
    copy = tmp_path_factory.mktemp("site")
    made = shutil.ignore_patterns("_build", "api", "examples")
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=made)
    shutil.copytree(ROOT / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("*.py", "*.json"))
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / name, copy)
    out = copy / "docs" / "_build" / "html"
    strict = ["-W", "--keep-going", "-n", "-q", "-D", "plot_gallery=0"]
    build = [sys.executable, "-m", "sphinx", "-b", "html", *strict, "docs", str(out)]
    done = subprocess.run(build, cwd=copy, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return out


class Loaded(HTMLParser):
    """Addresses of everything that a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and set(values.get("rel", "").split()) & NOT_LOADED:
            return
        self.found += [values[name] for name in (LOADING.get(tag), "srcset", "poster") if name in values]
        self.found += re.findall(r"url\(\s*['\"]?([^)'\"]+)", values.get("style", ""))


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 80
    for page in pages:
        for address in Loaded(page.read_text(encoding="utf-8")).found:
            if address.startswith("data:"):
                continue
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
            own = page.parent / unquote(address.split("?")[0].split("#")[0].split(" ")[0])
            assert own.is_file(), f"{page.name}: {address} is not there"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import)\s*['\"]?([^)'\";]+)", sheet.read_text(encoding="utf-8")):
            assert not re.match(r"(https?:)?//", address), f"{sheet.name} loads {address}"


@pytest.mark.slow
def test_what_people_look_for_is_there(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    assert "landing.webp" in first
    formulas = (site / "mathematics.html").read_text(encoding="utf-8")
    assert formulas.count('class="math notranslate nohighlight"') > 30
    assert (site / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 1e6
    call = (site / "api" / "fpmtools.reconstruct.html").read_text(encoding="utf-8")
    for heading in ("Parameters", "Returns", "Raises", "Examples"):
        assert heading in call
    assert "Unreleased" in (site / "changelog.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_nobody_is_shut_out(site: Path, seen: Callable[..., Chrome], shut_out: Callable[[Chrome], list[Any]]) -> None:
    """axe-core finds nothing: code, tables and formulas that are wider than a telephone."""
    for name, width, dark in [("viewing", 390, True), ("limits", 1366, True), ("mathematics", 390, False)]:
        browser = seen((site / f"{name}.html").as_uri(), width, dark=dark)
        if name == "mathematics":
            ready = "const done = arguments[0]; MathJax.startup.promise.then(() => setTimeout(done))"
            browser.execute_async_script(ready)
        assert shut_out(browser) == [], name
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), name


@pytest.mark.slow
def test_links_from_one_page_to_another_lead_there(site: Path) -> None:
    for page in site.glob("**/[!_]*.html"):
        for address in re.findall(r'<a\b[^>]*\bhref="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"\w+:", address):
                assert (page.parent / unquote(address)).exists(), f"{page.name}: {address}"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_pictures(tmp_path: Path) -> None:
    """The file that the gallery offers to download, by a kernel of its own; nothing of it is kept in the repository."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
    from sphinx_gallery.notebook import jupyter_notebook
    from sphinx_gallery.py_source_parser import split_code_and_text_blocks

    _, cells = split_code_and_text_blocks(str(NOTEBOOK))
    text = json.dumps(jupyter_notebook(cells, DEFAULT_GALLERY_CONF, str(NOTEBOOK.parent)))
    notebook = nbformat.reads(text, as_version=4)
    lines = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code").splitlines()
    assert len([line for line in lines if line and not line.startswith(("import ", "from "))]) <= 20
    for long, short in SHORTER.items():
        assert any(long in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(long, short)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [set(output.data) for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in one for one in shown) == 1
    assert sum("text/html" in one for one in shown) >= 2
    assert (tmp_path / "cells.ome.tiff").is_file()
    assert (tmp_path / "cells.safetensors").is_file()
