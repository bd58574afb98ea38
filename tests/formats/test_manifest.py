"""The manifest's entries, and fetching against a real local web server: verify, resume, refuse, work offline."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fpmtools.errors import DataError, OptionError, OutputError
from fpmtools.formats import load, manifest
from fpmtools.formats.announced import READERS
from fpmtools.formats.manifest import Fetched, File, ManifestEntry

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content`` under any name; ``cut`` ends replies early, ``asked`` keeps the ranges asked for."""

    daemon_threads = True
    content = CONTENT
    cut: int | None = None
    tag = '"one"'
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        content, start = self.server.content, 0
        if self.path.endswith("/absent.bin"):
            self.send_error(404)
            return
        if asked and self.server.ranges and self.headers.get("If-Range", self.server.tag) == self.server.tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(content[start : self.server.cut])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def entry_at(server: Server, sha256: str | None = SHA256, name: str = "data.bin") -> ManifestEntry:
    file = File(name, f"http://127.0.0.1:{server.server_port}/some%20where/{name}", sha256)
    return ManifestEntry("sample", "A sample", "uconn", "folder", (file,), "none", "none", "none")


def test_entries_are_complete() -> None:
    names = [entry.name for entry in manifest.entries()]
    assert {"uconn_red", "uconn_green", "uconn_blue", "uconn_aberration", "thu_phase_target"} <= set(names)
    assert {"blood_smear_tilt_r", "sheepblood_r", "wu1005_r", "siemens_r", "thyroid_r"} <= set(names)
    for entry in manifest.entries():
        assert entry.reader in {reader.name for reader in READERS}
        assert entry.files
        assert entry.licence
        assert entry.citation
        json.dumps(entry.to_dict())
        for file in entry.files:
            assert re.fullmatch(r"https://\S+", file.url)
            assert Path(file.name).name == file.name
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)


def test_the_erratum_is_followed() -> None:
    (file,) = manifest.find("blood_smear_tilt_r").files
    assert file.name == "BloodSmearTilt_r.mat"
    assert file.url.endswith("/7aer7-qhf77/files/BloodSmearTilt_g.mat")


def test_unknown_name() -> None:
    with pytest.raises(OptionError, match="did you mean 'siemens_r'"):
        manifest.fetch("siemens")


def test_listed_sums_are_the_published_ones(measured_data: Any) -> None:
    for folder, names in (
        ("uconn_blood_smear", ["uconn_red", "uconn_aberration"]),
        ("thu_phase_target", ["thu_phase_target"]),
    ):
        lines = (measured_data(folder) / "ORIGINALS.sha256").read_text().splitlines()
        published = {name: sha256 for sha256, name in (line.split() for line in lines)}
        for name in names:
            for file in manifest.find(name).files:
                assert file.sha256 == published[file.name]


def test_fetch_and_again(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    result = manifest.fetch(entry_at(server), tmp_path, progress=lambda *step: steps.append(step))
    assert result == Fetched(tmp_path / "folder", ("data.bin",), {})
    assert (tmp_path / "folder" / "data.bin").read_bytes() == CONTENT
    assert steps[-1] == ("data.bin", len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["data.bin"]
    assert manifest.fetch(entry_at(server), tmp_path).brought == ()
    assert server.asked == [None]


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_an_interrupted_download_is_continued(sha256: str | None, server: Server, tmp_path: Path) -> None:
    server.cut = 100_000
    with pytest.raises(DataError, match=r"data\.bin: .*run it again to continue"):
        manifest.fetch(entry_at(server, sha256), tmp_path)
    assert not (tmp_path / "folder" / "data.bin").exists()
    server.cut = None
    manifest.fetch(entry_at(server, sha256), tmp_path)
    assert (tmp_path / "folder" / "data.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_not_stitched(server: Server, tmp_path: Path) -> None:
    server.cut = 100_000
    with pytest.raises(DataError, match="run it again"):
        manifest.fetch(entry_at(server, None), tmp_path)
    server.cut, server.tag, server.content = None, '"two"', CONTENT[::-1]
    manifest.fetch(entry_at(server, None), tmp_path)
    assert (tmp_path / "folder" / "data.bin").read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.cut = 100_000
    with pytest.raises(DataError, match="run it again"):
        manifest.fetch(entry_at(server), tmp_path)
    server.cut, server.ranges = None, False
    manifest.fetch(entry_at(server), tmp_path)
    assert (tmp_path / "folder" / "data.bin").read_bytes() == CONTENT


def test_a_complete_partial_file_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data.bin.part").write_bytes(CONTENT)
    manifest.fetch(entry_at(server), tmp_path)
    assert (tmp_path / "folder" / "data.bin").read_bytes() == CONTENT


def test_a_mismatch_is_refused_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=r"data\.bin: refused: its SHA-256 is .* nothing was kept") as caught:
        manifest.fetch(entry_at(server), tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "folder").iterdir() if not path.name.endswith(".etag")] == []


def test_a_wrong_file_in_place_is_replaced_only_by_a_right_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data.bin").write_bytes(b"my own")
    server.content = b"wrong"
    with pytest.raises(DataError, match="refused"):
        manifest.fetch(entry_at(server), tmp_path)
    assert (tmp_path / "folder" / "data.bin").read_bytes() == b"my own"
    server.content = CONTENT
    assert manifest.fetch(entry_at(server), tmp_path).brought == ("data.bin",)


def test_the_first_sum_seen_is_recorded_and_held_to(server: Server, tmp_path: Path) -> None:
    assert manifest.fetch(entry_at(server, None), tmp_path).first_seen == {"data.bin": SHA256}
    assert json.loads((tmp_path / manifest.FIRST_SEEN).read_text()) == {"folder/data.bin": SHA256}
    assert manifest.fetch(entry_at(server, None), tmp_path).first_seen == {}
    (tmp_path / "folder" / "data.bin").unlink()
    server.content = b"another"
    with pytest.raises(DataError, match="refused"):
        manifest.fetch(entry_at(server, None), tmp_path)


def test_offline_from_a_folder(server: Server, tmp_path: Path) -> None:
    for source in (tmp_path / "a", tmp_path / "b" / "folder"):
        source.mkdir(parents=True)
        (source / "DATA.bin").write_bytes(CONTENT)
    manifest.fetch(entry_at(server), tmp_path / "1", source_dir=tmp_path / "a")
    manifest.fetch(entry_at(server), tmp_path / "2", source_dir=tmp_path / "b")
    assert (tmp_path / "2" / "folder" / "data.bin").read_bytes() == CONTENT
    (tmp_path / "a" / "DATA.bin").write_bytes(b"wrong")
    with pytest.raises(DataError, match="refused"):
        manifest.fetch(entry_at(server), tmp_path / "3", source_dir=tmp_path / "a")
    with pytest.raises(DataError, match="is neither in"):
        manifest.fetch(entry_at(server), tmp_path / "3", source_dir=tmp_path / "1" / "folder" / "nowhere")
    assert server.asked == []


def test_server_errors_are_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the server answered 404"):
        manifest.fetch(entry_at(server, name="absent.bin"), tmp_path)
    entry = entry_at(server)
    gone = replace(entry, files=(replace(entry.files[0], url="http://127.0.0.1:9/data.bin"),))
    with pytest.raises(DataError, match=r"download failed .*the option from"):
        manifest.fetch(gone, tmp_path)
    local = replace(entry, files=(replace(entry.files[0], url=(tmp_path / "secret").as_uri()),))
    with pytest.raises(DataError, match="must be http or https"):
        manifest.fetch(local, tmp_path)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file is in the way")
    with pytest.raises(OutputError, match="cannot write"):
        manifest.fetch(entry_at(server), tmp_path)


def test_load_finds_an_entrys_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In $FPMTOOLS_DATA or the cache, whatever the case of their names; the manifest gives order, optics and LEDs."""
    monkeypatch.delenv("FPMTOOLS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(
        DataError, match=r"thu_phase_target: its files are not in .*fpmtools data fetch thu_phase_target"
    ):
        load("thu_phase_target")
    entry = manifest.find("thu_phase_target")
    folder = manifest.data_dir() / entry.folder
    folder.mkdir(parents=True)
    assert tmp_path in folder.parents
    for i, file in enumerate(entry.files):
        tifffile.imwrite(folder / file.name.lower(), np.full((9, 11), i + 3, np.uint8))
    tifffile.imwrite(folder / "another.tif", np.zeros((9, 11), np.uint8))
    monkeypatch.setenv("FPMTOOLS_DATA", str(tmp_path / "elsewhere"))
    data = load("thu_phase_target")
    np.testing.assert_array_equal(data.intensities[:, 0, 0], np.arange(93) + 1)  # without the dark level of 2
    assert data.defocus_um == 180
    assert data.provenance["manifest_entry"] == "thu_phase_target"
    # LED 1 is at angle 0 on the first ring: the board's x is the image's y.
    np.testing.assert_allclose(data.na[1], [0, 9 / np.hypot(9, 110)], atol=1e-15)
    # The same board for a folder of one's own, named.
    (folder / "another.tif").unlink()
    mine = load(folder, leds="thu_phase_target", optics=entry.optics)
    np.testing.assert_array_equal(mine.na, data.na)
