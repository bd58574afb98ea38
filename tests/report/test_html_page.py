from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpmtools import known
from fpmtools.cli import main
from fpmtools.report import html_folder, html_page, html_templates
from fpmtools.report.html_sections import Section, beside

HOSTILE = "</script><script>document.title='x'</script><img src=//evil.example onerror=alert(1)>\"'&\u202e"


class Elements(HTMLParser):
    """Every element of a page, in order: (tag, attributes), and the text inside each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.in_script = tag == "script"
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.in_script = False

    def handle_data(self, data):
        if self.in_script:
            self.scripts[-1] += data
        self.words.append(data)

    def of(self, tag):
        return [attributes for found, attributes in self.found if found == tag]


def built(folder: Path) -> tuple[str, Elements]:
    text = html_page.write(folder).read_text()
    return text, Elements(text)


def change(folder, edit):
    path = folder / "results.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def section(text: str, name: str) -> str:
    return re.search(f'<section id="{name}".*?</section>', text, re.S).group()


def sections(text: str) -> list[str]:
    return re.findall('<section id="(.*?)"', text)


def test_one_file_that_needs_no_network(comparison_folder):
    text, page = built(comparison_folder)
    for _, attributes in page.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    assert not {tag for tag, _ in page.found} & {"link", "iframe", "object", "embed", "base", "form"}


def test_the_policy_lets_only_its_own_script_run(comparison_folder):
    _, page = built(comparison_folder)
    (policy,) = (meta["content"] for meta in page.of("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    own = [text for text, kind in zip(page.scripts, page.of("script"), strict=True) if "type" not in kind]
    digest = base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode()
    assert len(own) == 1
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_strings_stay_strings(comparison_folder, dataset):
    _, harmless = built(comparison_folder)
    known.save(replace(dataset, name=HOSTILE), comparison_folder / "truth" / "hostile.safetensors")

    def edit(document):
        document["data"]["name"] = HOSTILE
        document["rows"][0]["solver"] = document["runs"][0]["label"] = HOSTILE
        document["runs"][0]["folder"] = "runs/good"
        document["rows"][2].update(solver=HOSTILE + "2", reason=HOSTILE, status=HOSTILE)
        document["rows"][1][HOSTILE] = 3.5
        document["command"] = ["fpmtools", HOSTILE]
        document["runs"][0].update(data={"name": HOSTILE, "digest": HOSTILE}, options={HOSTILE: HOSTILE})
        document["runs"][0]["versions"] = {HOSTILE: HOSTILE}
        document["runs"][1]["data"]["name"] = HOSTILE

    change(comparison_folder, edit)
    _, page = built(comparison_folder)
    assert len(page.of("script")) == len(harmless.of("script")) == 2
    assert {tag for tag, _ in page.found} == {tag for tag, _ in harmless.found}
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)
    assert all(attributes["src"].startswith("data:") for attributes in page.of("img"))
    data = json.loads(page.scripts[0])
    assert data["galleries"][0]["sources"][0]["name"] == HOSTILE
    assert any(HOSTILE in words for words in page.words)


def test_lone_surrogates_and_control_characters_do_not_stop_it(comparison_folder):
    change(comparison_folder, lambda document: document["rows"][2].update(solver="\ud800\x00\x1b[2J", reason="\udfff"))
    assert b"</html>" in html_page.write(comparison_folder).read_bytes()


def test_what_is_there_is_shown(comparison_folder):
    text, _ = built(comparison_folder)
    assert section(text, "summary").count('<th scope="row">') == 3
    assert "PSNR over time" in section(text, "quality-over-time")
    assert "SSIM over time" not in section(text, "quality-over-time")
    assert "Pareto front" in section(text, "storage")
    assert "threshold" in section(text, "ring-correlation")
    assert "Loss over time" in section(text, "convergence")
    assert section(text, "error-maps").count("<img") == 2
    assert "killed by SIGSEGV" in section(text, "failures")
    assert "fpmtools compare --data &#39;my file.mat&#39;" in section(text, "reproduce")
    assert "c0ffee" in section(text, "reproduce")


def test_the_pictures_of_the_residual_are_shown_and_what_is_none_is_left_out(comparison_folder):
    text, _ = built(comparison_folder)
    assert "residual" not in sections(text)
    assert "one plane" in section(text, "reproduce"), "and why"
    good = {"shares": [0.634, 0.1], "pictures": [[[0.0, 1.0], [-1.0, 0.5]], [["x", 1], [2, 3]]]}

    def edit(document):
        document["runs"][0]["fit"] = {"bad": "", "residual": good}
        document["runs"][1]["fit"] = {"bad": "", "residual": {"shares": 3, "pictures": [[1.0], 2]}}

    change(comparison_folder, edit)
    shown = section(built(comparison_folder)[0], "residual")
    assert "63.4 % of the error" in shown
    assert shown.count("<img") == 1, "the other has no numbers, the second solver no pictures"
    uri = re.search(r'src="data:image/png;base64,([^"]+)"', shown).group(1)
    with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red_less_blue = pixels[..., 0] - pixels[..., 2]
    middle = red_less_blue.shape[0] // 4
    assert abs(red_less_blue[middle, middle]) < 20, "0 is white"
    assert red_less_blue[middle, 3 * middle] > 50
    assert red_less_blue[3 * middle, middle] < -50


def test_small_sections_stand_side_by_side_and_none_leaves_half_a_page_empty():
    wide, small = Section("Wide", "summary.html"), Section("Small", "failures.html")
    for sections, expected in (
        ("wsswssswsw", [0, 1, 1, 0, 1, 1, 0, 0, 0, 0]), ("ss", [1, 1]), ("s", [0]), ("", []), ("ssss", [1, 1, 1, 1])
    ):  # fmt: skip
        found = beside([wide if letter == "w" else small for letter in sections])
        assert [section.half for section in found] == [bool(half) for half in expected]
    residual = Section("Residual", "residual.html", [{"name": "a"}])
    assert residual.small
    assert not replace(residual, content=[{"name": "a"}, {"name": "b"}]).small


def test_what_is_missing_says_why(comparison_folder):
    for truth in (comparison_folder / "truth").iterdir():
        truth.unlink()
    for result in (comparison_folder / "runs").rglob("*.safetensors"):
        result.unlink()

    def edit(document):
        for row in document["rows"]:
            row.update(psnr=None, ssim=None, stored_bytes=None)
        document["runs"] = []
        del document["command"]

    change(comparison_folder, edit)
    text, page = built(comparison_folder)
    assert sections(text) == ["summary", "failures", "reproduce"]
    links = [attributes["href"] for attributes in page.of("a")]
    assert links == ["#summary", "#failures", "#reproduce"]
    for reason in (
        "No solver has a result that can be shown",
        "need a known truth",
        "needs a known truth",
        "It takes two results with both",
        "two more solves",
        "have not recorded how their loss fell",
        "command was not recorded",
        "nothing else was found",
    ):
        assert reason in section(text, "reproduce"), reason
    assert not page.of("canvas")


def test_without_failures_there_is_no_section_of_them(comparison_folder):
    change(comparison_folder, lambda document: document["rows"].pop())
    text, _ = built(comparison_folder)
    assert "failures" not in sections(text)
    assert "2 of 2 gave a result" in section(text, "summary")


def test_numbers_have_units_spreads_and_unknown_metrics_a_column(comparison_folder):
    def edit(document):
        document["rows"][0].update(seconds_min=1.2, seconds_max=1.8, repeats=3, stray_light_um=0.25, flag=True)

    change(comparison_folder, edit)
    table = section(built(comparison_folder)[0], "summary")
    assert "1.20–1.80" in table
    assert re.search(r'>stray light<span class="arrow".*?>µm</span>', table)
    assert 'data-value="0.25"' in table
    assert "seconds_min" not in table
    assert ">flag<" not in table
    assert "1 kB" in table


def test_several_data_sets_each_have_their_charts(comparison_folder):
    def edit(document):
        name = document["data"]["name"]
        document["rows"] = [{**row, "data": data} for data in (name, "other") for row in document["rows"]]
        document["runs"] += [{**run, "data": {"name": "other"}} for run in document["runs"]]

    change(comparison_folder, edit)
    text, page = built(comparison_folder)
    assert section(text, "convergence").count("<svg viewBox") == 2
    assert len(json.loads(page.scripts[0])["galleries"]) == 2
    assert "need a known truth" not in section(text, "error-maps")


def test_the_command_rebuilds_it_and_draws_figures(comparison_folder, capsys):
    assert main(["report", str(comparison_folder), "--figures", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["report"]) == comparison_folder / "report.html"
    names = {Path(path).name for path in said["figures"]}
    stems = {"side_by_side", "psnr_over_time", "storage_quality", "ring_correlation_truth", "loss_over_time"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    for path in map(Path, said["figures"]):
        start = path.read_bytes()[:200]
        assert start.startswith(b"\x89PNG") if path.suffix == ".png" else b"<?xml" in start


@pytest.mark.parametrize("arguments", [["report"], ["report", "nowhere"], ["report", "nowhere", "--figures"]])
def test_a_mistake_is_one_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_verdicts_stand_below_the_table_and_are_escaped(comparison_folder):
    path = comparison_folder / "results.json"
    document = json.loads(path.read_text())
    floor = {"difference": 0.2, "noise_floor": 0.5}
    document["verdicts"] = [
        {"data": "d", "number": "psnr", "winner": None, "reason": "inside <i>the</i> floor", **floor},
        {"data": "d", "number": "seconds_to_target", "winner": "good<b>", "reason": "", **floor},
        "nonsense",
    ]
    path.write_text(json.dumps(document))
    text = html_page.page(html_folder.read(comparison_folder))
    shown = section(text, "summary")
    assert "PSNR: <bdi>no winner: inside &lt;i&gt;the&lt;/i&gt; floor (0.2 dB, noise floor 0.5 dB)</bdi>" in shown
    assert "time to target: <b><bdi>good&lt;b&gt;</bdi></b> <bdi>best by 0.2 s, noise floor 0.5 s</bdi>" in shown


def test_why_nobody_wins_is_said_once(comparison_folder):
    few = "one run of a solver: too few to know the noise floor"

    def edit(document):
        verdict = {"data": "d", "winner": None, "reason": few, "difference": 0.2, "noise_floor": None}
        document["verdicts"] = [{**verdict, "number": name} for name in ("psnr", "ssim")]

    change(comparison_folder, edit)
    shown = section(built(comparison_folder)[0], "summary")
    assert shown.count("the best two differ by 0.2") == 2
    assert shown.count(few) == 1


def test_the_templates_escape_and_nobody_does_it_by_hand():
    """Two things go into the page as they are: our own files (the style sheet, the script), and charts."""
    room = Path(html_page.__file__).parent
    unescaped = [
        word
        for path in (room / "templates").iterdir()
        for word in re.findall(r"{{(.*?)}}", path.read_text())
        if "safe" in word
    ]
    assert unescaped == [" chart.svg()|safe "]
    assert html_templates.templates().autoescape is True
    for path in room.parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"from html import|import html$|html\.escape", text), path
        assert "Markup(" not in text or path.name == "html_page.py", path


def test_the_page_names_no_option_of_the_command_line(comparison_folder):
    """Below the command line nobody knows its words; the recorded command is data."""
    change(comparison_folder, lambda document: document.update(command=["fpmtools"], runs=[]))
    text, page = built(comparison_folder)
    words = " ".join(page.words).replace(page.scripts[0], "").replace(page.scripts[1], "")
    style = re.search(r"<style>.*?</style>", text, re.S).group()
    assert not re.search(r"--[a-z]", words.replace(style[7:-8], ""))
