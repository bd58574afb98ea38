"""The guide for authors of formats says everything that the contract has, and its code keeps its promises."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpmtools import ReaderRecord, Recording, Volume, WriterRecord, registry
from fpmtools.formats.channels import CHANNELS, Channel
from fpmtools.formats.recording import Wanted

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "writing-a-format.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
PUBLIC = [name for name in vars(Volume) if not name.startswith("_") and name not in ("of", "about")]


@pytest.mark.parametrize(
    "name",
    [
        *(field.name for kind in (WriterRecord, ReaderRecord, Recording, Wanted) for field in dataclasses.fields(kind)),
        *(field.name for kind in (Volume, Channel) for field in dataclasses.fields(kind)),
        *PUBLIC,
        *CHANNELS,
    ],
)
def test_every_name_of_the_contract_is_explained(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(name)}\b[^`\n]*`", GUIDE), f"{name} is not in docs/writing-a-format.md"


@pytest.fixture
def guide(plugin: Callable[..., Path]) -> dict[str, Any]:
    """The example as an installed package, and the names of its tests."""
    announcement, files, tests = CODE
    plugin("fpmtools-nrrd", announcement.replace("fpmtools_nrrd.files", "fpmtools_nrrd_files"), "nrrd")
    folder = plugin("fpmtools-nrrd-files", files, metadata="")
    assert (folder / "fpmtools_nrrd_files.py").is_file()
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(tests, "tests", "exec", dont_inherit=True), names)
    return names


def test_the_example_keeps_the_promises_of_writers(guide: dict[str, Any], tmp_path: Path) -> None:
    test = guide["TestWriter"]()
    test.test_its_suffixes_lead_to_it()
    for k, z_um in enumerate([(-1.0, 0.5, 2.0), (0.0, 0.25, 7.0), (1.0,)]):
        (tmp_path / str(k)).mkdir()
        test.test_what_was_written_is_there(z_um, (30, 43), tmp_path / str(k))
    for promise in (
        test.test_planes_are_taken_one_at_a_time,
        test.test_a_source_of_parts_is_written_as_a_whole_one,
        test.test_what_fails_leaves_nothing_and_what_was_there_stays,
        test.test_a_name_is_only_text,
    ):
        (tmp_path / promise.__name__).mkdir()
        promise(tmp_path / promise.__name__)
    assert registry.faults() == []


def test_the_example_keeps_the_promises_of_readers(guide: dict[str, Any], tmp_path: Path) -> None:
    test, folder = guide["TestReader"](), tmp_path / "data"  # apart from the plugin
    folder.mkdir()
    test.test_images_come_back_as_they_are((5, 24, 30), folder)
    test.test_it_is_found_without_its_name(folder)
    test.test_it_says_nothing_that_it_does_not_know(folder)
    for kept in (0.0, 0.1, 0.6):
        test.test_a_file_that_is_cut_off_is_one_line(kept, folder)
