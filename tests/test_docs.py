"""Every code block of the README and of docs/ is run, page by page and in order, or named here with the reason why not.

A page is a session in a folder of its own, as for who types it. Commands are made small: the built-in sample has few
pixels, the microscope is as it is said to be, solving ends after half a second, comparisons have one solver, once.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import tifffile

import fpmtools
from fpmtools.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*.rst"))]
PAGES += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# Pages whose blocks need more than a folder: a package, a board, a notebook's names.
ELSEWHERE = {
    "python.md": "test_examples.py",
    "your-own-data.md": "test_docs_own_data.py",
    "writing-a-format.md": "plugins/test_docs_format.py",
    "writing-a-metric.md": "plugins/test_docs.py",
    "writing-a-solver.md": "plugins/test_docs.py",
}
TOO_LARGE = {
    "slides.md": "needs a frame of thousands of pixels, slide.h5; its commands are tested where tiles are",
    "colour.md": "needs frames in colour, and measured data; its commands are tested in tests/colour",
}
NOT_RUN = {
    "make demo": "installs; its words are those of fpmtools compare below it",
    "make test": "runs this",
    "make docs": "test_site.py builds the same",
    "python3 -m venv .venv": "the tests have one already",
    ".venv/bin/pip install -c constraints.txt .": "needs a network; plugins/test_install.py installs without",
    "pip install -c constraints.txt .": "the same",
    ".venv/bin/python -m pytest -k ap": "runs this",
    "pip install napari pyqt6 fpmtools": "needs a network",
    "fpmtools simulate --slide --shape 2048,2048 --out slide": "minutes; test_slide.py makes small ones",
    "fpmtools run --data slide/images.npy --config slide/microscope.yaml --roi 1700,1600,128,128 --z 12 --solver ap": (
        "needs the slide of the line before"
    ),
    "napari out/ap": "needs napari; test_napari.py opens what it would",
}
# What pages that do not begin with nothing have behind them.
BEFORE = {
    "viewing.md": ("run --solver ap --out out/ap", "run --solver inr --out out/inr", "compare --solvers ap"),
}
SHOWN = {"text", "toml"}  # what programs say, and what tests of a guide read
SHORTER = {  # of Python, and of what a microscope.yaml says of the same board
    '["inr", "ap"]': '["ap:sweeps=5"]', "image_shape=(72, 96)": "image_shape=(48, 54)",
    "raster(9, 9, 5.0)": "raster(7, 7, 6.5)", "ny: 9, nx: 9, pitch_mm: 5": "ny: 7, nx: 7, pitch_mm: 6.5",
}  # fmt: skip
SIZE = "@16x24"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each block, in order."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        yield from re.findall(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    else:
        for language, body in re.findall(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", text, re.MULTILINE):
            yield language, re.sub("^   ", "", body, flags=re.MULTILINE)


def commands(text: str) -> Iterator[str]:
    """Lines of a block, those that go on joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if command := " ".join(shlex.split(line, comments=True)):
            yield command if "'" not in line and '"' not in line else re.sub(r"\s+#.*", "", line)


def small(words: list[str]) -> list[str]:
    """The same command in a second or two."""
    words = list(words)

    def put(name: str, value: str) -> None:
        if name in words:
            words[words.index(name) + 1] = value
        else:
            words.extend([name, value])

    if words[0] in ("run", "compare"):
        data = words[words.index("--data") + 1] if "--data" in words else "sim:tilted"
        if data.startswith("sim:"):
            put("--data", f"{data}{SIZE}")
            words.extend(["--calibrate", "none"])
        put("--budget", "0.5s")
        words.append("--force")
    if words[0] == "compare":
        put("--solvers", words[words.index("--solvers") + 1].split(",")[-1])
        put("--repeats", "1")
        put("--out", words[words.index("--out") + 1] if "--out" in words else "out/sim-tilted-compare")
        words.append("--no-held-out")
    return words


def viewed(words: list[str], forked: Callable[..., Any]) -> int:
    """``fpmtools view`` until it says where; Ctrl-C ends it."""
    where = [str(Path(word).resolve()) if Path(word).exists() else word for word in words]
    with forked([*where, "--no-open"], stdout=subprocess.PIPE) as process:
        if process.stdout.readline().startswith(b"http://127.0.0.1:"):
            process.send_signal(signal.SIGINT)
        return process.wait()


OPTICS = {"wavelength_um": 0.523, "na": 0.1, "magnification": 4, "camera_pixel_um": 4}  # those of the README


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pages speak of, not to be changed."""
    folder = tmp_path_factory.mktemp("sample")
    na = 0.1 / 0.256 * fpmtools.simulate("thin", image_shape=(16, 16)).na
    data = fpmtools.simulate("thin", image_shape=(48, 56), optics=OPTICS, leds=na)
    for name in ("my.mat", "other.mat", "measurements.mat"):
        said = {
            "I_low": np.moveaxis(data.intensities, 0, 2), "na_calib": na, "na_cal": 0.1, "mag": 4, "dpix_c": 4.0,
            "lambda": 0.523,
        }  # fmt: skip
        scipy.io.savemat(folder / name, said)
    (folder / "my_images").mkdir()
    for i, image in enumerate(data.intensities):
        tifffile.imwrite(folder / "my_images" / f"{i:02}.tif", (20000 * image).astype(np.uint16))
    (folder / "leds.csv").write_text("\n".join(["na_x,na_y", *(f"{x},{y}" for x, y in na)]))
    (folder / "microscope.yaml").write_text(f"optics: {OPTICS}\nleds: leds.csv\n")
    return folder


@pytest.fixture
def folder(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with these."""
    shutil.copytree(sample, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


RUN = [page for page in PAGES if page.name not in {*ELSEWHERE, *TOO_LARGE} and any(blocks(page))]


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_page(page: Path, folder: Path, forked: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    if "make_images" in page.read_text(encoding="utf-8"):  # a page that begins with nothing
        shutil.rmtree(folder / "my_images")
        (folder / "microscope.yaml").unlink()
    for command in BEFORE.get(page.name, ()):
        assert main(small(command.split())) == 0
    names: dict[str, object] = {"__name__": "page"}
    for language, text in blocks(page):
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        if language == "python":
            exec(compile(text, page.name, "exec", dont_inherit=True), names)
        elif language == "yaml":
            with (folder / re.match(r"# ([\w.]+)", text)[1]).open("a") as file:  # type: ignore[index]
                file.write(text)
        elif language == "sh":
            for command in commands(text):
                if command in NOT_RUN:
                    continue
                words = shlex.split(command)
                assert words[0].removeprefix(".venv/bin/") == "fpmtools", f"{command}: run it, or say why not"
                status = viewed(words[1:], forked) if words[1] == "view" else main(small(words[1:]))
                assert status == 0, f"{command}: {capsys.readouterr().err}"
        else:
            assert language in SHOWN or language.startswith("{include}"), f"{page.name}: a block of {language!r}"


def test_every_page_is_run_somewhere() -> None:
    """Those that have tests of their own are read there; and nothing is excused that no page has."""
    found = {
        command for page in PAGES for language, text in blocks(page) if language == "sh" for command in commands(text)
    }
    assert set(NOT_RUN) <= found
    for name, test in ELSEWHERE.items():
        assert name in (ROOT / "tests" / test).read_text(), f"{test} does not read {name}"


def test_every_page_has_its_place_on_the_site() -> None:
    """In the table of contents of a section; a star stands for pages that may come."""
    listed: set[Path] = set()
    for page in (ROOT / "docs").glob("*.rst"):
        for toctree in re.findall(r"\.\. toctree::\n((?:   .*\n|\n)+)", page.read_text()):
            for entry in re.findall(r"^   ([\w*/-]+)$", toctree, re.MULTILINE):
                listed |= set((ROOT / "docs").glob(f"{entry}.*"))
    missing = (
        {page.name for page in PAGES if page.parent.name == "docs"} - {page.name for page in listed} - {"index.rst"}
    )
    assert not missing, f"add to a toctree in docs/*.rst: {sorted(missing)}"


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "reference.rst").read_text(), re.MULTILINE)
    assert set(fpmtools.__all__) - {"__version__"} <= set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """In the repository itself, where Markdown is read as it is."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
