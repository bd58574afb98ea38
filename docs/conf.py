"""How the documentation site is built: ``make docs``. Nothing is fetched, and no page loads anything from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import matplotlib as mpl
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import fpmtools

mpl.use("Agg")

HERE = Path(__file__).parent

project = "fpmtools"
author = "The fpmtools developers"
copyright = author
version = release = fpmtools.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "figures", "gallery", "requirements*", "**.ipynb"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]

# Text. The Markdown files are read on their own as well, so they keep to what plain Markdown has.
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
smartquotes = False
highlight_language = "console"
copybutton_exclude = ".linenos, .gp, .go"

# The reference, from docstrings.
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # docstrings say more: shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!fpmtools\b).*"),
    (r"py:.*", r"fpmtools\.metrics\..*"),
]  # of other projects nothing is known without a network
nitpick_ignore = [  # docstrings name these for who reads the code; they are not public
    ("py:class", "fpmtools.stray.StrayLight"),
    ("py:func", "fpmtools.engine.solve"),
    ("py:func", "fpmtools.forward.batches.in_batches"),
    ("py:func", "fpmtools.imaging.vignetting_gain"),
    ("py:func", "fpmtools.problem.prepare"),
    ("py:func", "fpmtools.noise.measure"),
    ("py:mod", "fpmtools.catalogue"),
]

# Pictures that are made while the site is built. Scripts write files beside themselves, so copies are run.
SCRIPTS = HERE / "_build" / "gallery"
shutil.copytree(HERE / "gallery", SCRIPTS, dirs_exist_ok=True)
sphinx_gallery_conf = {
    "examples_dirs": str(SCRIPTS),
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "min_reported_time": 0,
    "write_computation_times": False,  # these tables would load scripts from elsewhere
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "reset_modules": ("matplotlib",),
    "image_srcset": ["2x"],
    "thumbnail_size": (480, 220),
    "default_thumb_file": str(HERE / "figures" / "conventions.png"),
}

# Pages.
html_theme = "pydata_sphinx_theme"
html_title = "fpmtools"
html_static_path = ["_static"]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_baseurl = ""
html_theme_options = {
    "logo": {"text": "fpmtools"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "github-light-high-contrast",
    "pygments_dark_style": "github-dark",  # comments: site.css
}
html_sidebars: dict[str, list[str]] = {"index": [], "changelog": [], "examples/*": []}

# Formulas are drawn by the reader's browser, with a copy of MathJax (Apache-2.0) that comes with the site.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}

# Markdown files that live elsewhere in the repository, and the page that shows them.
PAGES = {
    "../benchmarks/RESULTS.md": "results.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../README.md": "index.rst",
    "../SECURITY.md": "security.md",
    "../plugins/template": "writing-a-solver.md",
}


def pages_that_are_there(app: Sphinx, name: str, source: list[str]) -> None:
    """A toctree may name pages with a star: what matches nothing is left out."""

    def found(line: re.Match[str]) -> str:
        return line[0] if any(HERE.glob(f"{line[1]}.*")) else ""

    source[0] = re.sub(r"^ +([\w-]+\*)\n", found, source[0], flags=re.MULTILINE)


def bars_are_bars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """In docstrings bars are those of an absolute value, not of a substitution in reStructuredText."""
    parts = re.split(r"(``.+?``|^ *>>>.*$)", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def link_inside(app: Sphinx, name: str, source: list[str]) -> None:
    """What is a link into the repository on its own is one to a page on the site."""
    for elsewhere, page in PAGES.items():
        source[0] = re.sub(rf"\]\({re.escape(elsewhere)}(?=[)#/])[^)#]*", f"]({page}", source[0])


def link_inside_included(app: Sphinx, path: Path, docname: str, source: list[str]) -> None:
    """The same for files that a page includes; those are written from their own folder."""
    source[0] = re.sub(r"\]\(docs/", "](", source[0])
    for elsewhere, page in PAGES.items():
        name = elsewhere.removeprefix("../")
        source[0] = re.sub(rf"\]\({re.escape(name)}(?=[)#/])[^)#]*", f"]({page}", source[0])
        source[0] = re.sub(rf"\]\({re.escape(name.split('/')[-1])}\)", f"]({page})", source[0])


def add_mathjax(app: Sphinx, error: Exception | None) -> None:
    """The one file of MathJax that the pages load."""
    if error is None and app.builder.format == "html":
        found = importlib.util.find_spec("sphinx-mathjax-offline")
        assert found is not None
        assert found.origin is not None
        target = Path(app.outdir, "_static", mathjax_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(found.origin).parent / "static" / mathjax_path, target)


def setup(app: Sphinx) -> None:
    app.add_lexer("csv", TextLexer)
    app.connect("autodoc-process-docstring", bars_are_bars, priority=100)
    app.connect("source-read", pages_that_are_there)
    app.connect("source-read", link_inside)
    app.connect("include-read", link_inside_included)
    app.connect("build-finished", add_mathjax)
