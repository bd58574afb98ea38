"""Published data sets by name: what they are, where their files are, and getting them with their checksums verified."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from fpmtools import storage
from fpmtools.errors import DataError, OptionError, OutputError, unknown

FILE = "data_manifest.yaml"
FIRST_SEEN = "first-seen-checksums.json"
_CHUNK = 1 << 20
_TIMEOUT_S = 30

Progress = Callable[[str, int, "int | None"], None]
"""Called with a file's name, the bytes it has so far, and the bytes it will have, if that is known."""


@dataclass(frozen=True)
class File:
    """One published file: its name here, its address, and its SHA-256, where one is known."""

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class ManifestEntry:
    """A published data set; ``optics``, ``leds``, ``defocus_um``, ``dark_level`` are what its files do not say."""

    name: str
    title: str
    reader: str
    folder: str
    files: tuple[File, ...]
    licence: str
    citation: str
    homepage: str
    optics: Mapping[str, float] = field(default_factory=dict)
    leds: Mapping[str, Any] | None = None
    defocus_um: float | None = None
    dark_level: float = 0.0
    notes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Fetched:
    """What :func:`fetch` did: the folder, the files it brought, and the sums it saw first where none was known."""

    folder: Path
    brought: tuple[str, ...]
    first_seen: Mapping[str, str]


@cache
def entries() -> tuple[ManifestEntry, ...]:
    """All data sets in the manifest, in its order."""
    import yaml

    here = Path(__file__).resolve()
    candidates = [here.parents[1] / FILE, here.parents[2] / FILE]  # in an installed package; beside it in a checkout
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise DataError(f"{FILE} is missing from this installation; install fpmtools again")
    try:
        return tuple(_entry(name, value) for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items())
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a valid manifest ({' '.join(str(error).split())[:200]})") from error


def find(name: str) -> ManifestEntry:
    """The data set of this name; :class:`OptionError` with the nearest name when there is none."""
    for entry in entries():
        if entry.name == name:
            return entry
    raise unknown("data set", name, [entry.name for entry in entries()])


def data_dir() -> Path:
    """Where fetched data are kept: ``$FPMTOOLS_DATA``, or else the platform's folder for caches.

    Raises :class:`OptionError` when there is neither: a user without a home folder.
    """
    for folder in data_dirs():
        return folder
    raise OptionError("there is no home folder to keep data in: set FPMTOOLS_DATA to a folder")


def data_dirs() -> list[Path]:
    """Where data are looked for, the best place first; there may be none."""
    given = os.path.expanduser(os.environ.get("FPMTOOLS_DATA", ""))
    own = Path(given) if given and not given.startswith("~") else None  # without a home folder, ~ stays
    return [folder for folder in (own, storage.cache_dir()) if folder is not None]


def local_files(entry: ManifestEntry) -> list[Path] | None:
    """The entry's files in the manifest's order, if all are on this machine; None otherwise. Sums are not checked.

    Looks into ``$FPMTOOLS_DATA`` and the cache, in the entry's folder; upper and lower case are the same.
    """
    for base in data_dirs():
        if (found := _all_in(base / entry.folder, entry)) is not None:
            return found
    return None


def fetch(
    name: str | ManifestEntry,
    dest: str | Path | None = None,
    source_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Bring a data set's files to this machine; files that are there and correct stay.

    Parameters
    ----------
    name
        Name in the manifest, or an entry.
    dest
        Folder for data sets; the entry's own folder is made in it. Default :func:`data_dir`.
    source_dir
        Copy from here (the entry's folder in it, or the files themselves) instead of from the network.
    progress
        Called as bytes arrive.

    Returns
    -------
    Fetched

    Raises
    ------
    DataError
        When a file cannot be had, or its SHA-256 is not the published (or first seen) one. Nothing wrong is ever left
        under the file's name; an interrupted download is kept beside it and continued by the next call.
    OutputError
        When the folder cannot be written.
    """
    entry = find(name) if isinstance(name, str) else name
    base = Path(dest) if dest is not None else data_dir()
    folder = base / entry.folder
    seen = _read_sums(base)
    brought, first_seen = [], {}
    for file in entry.files:
        key = f"{entry.folder}/{file.name}"
        expected = file.sha256 or seen.get(key)
        target = folder / file.name
        if not (target.is_file() and (expected is None or _sha256(target) == expected)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _bring(file, target, expected, entry, source_dir, progress)
            except OSError as error:
                raise OutputError.of(error, target) from error
            brought.append(file.name)
        if expected is None:
            first_seen[file.name] = seen[key] = _sha256(target)
    if first_seen:
        storage.write_json(base / FIRST_SEEN, seen)
    return Fetched(folder, tuple(brought), first_seen)


def _entry(name: str, value: dict[str, Any]) -> ManifestEntry:
    url, published = value.pop("url"), value.pop("published_as", {})
    files = [File(file, url + quote(published.get(file, file)), sha256) for file, sha256 in value.pop("files").items()]
    return ManifestEntry(name=name, files=tuple(files), **value)


def _all_in(folder: Path, entry: ManifestEntry) -> list[Path] | None:
    if not folder.is_dir():
        return None
    paths = list(folder.iterdir())
    there = {**{path.name.lower(): path for path in paths}, **{path.name: path for path in paths}}
    found = [there.get(file.name, there.get(file.name.lower())) for file in entry.files]
    files = [path for path in found if path is not None]
    return files if len(files) == len(found) else None


def _bring(
    file: File,
    target: Path,
    expected: str | None,
    entry: ManifestEntry,
    source_dir: str | Path | None,
    progress: Progress | None,
) -> None:
    """Fill a partial file beside ``target``, verify it, and only then give it its name."""
    partial = target.with_name(target.name + ".part")
    if source_dir is not None:
        shutil.copyfile(_offered(file, entry, Path(source_dir)), partial)
        if progress is not None:
            progress(file.name, partial.stat().st_size, partial.stat().st_size)
    else:
        _download(file, partial, expected, progress)
    if expected is not None and (actual := _sha256(partial)) != expected:
        partial.unlink()
        raise DataError(
            f"{file.name}: refused: its SHA-256 is {actual[:16]}…, and {expected[:16]}… is expected; nothing was kept"
        )
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, target)
    _tag_of(partial).unlink(missing_ok=True)


def _offered(file: File, entry: ManifestEntry, source: Path) -> Path:
    for folder in (source / entry.folder, source):
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name.lower() == file.name.lower() and path.is_file():
                    return path
    raise DataError(f"{file.name} is neither in {source} nor in {source / entry.folder}")


def _download(file: File, partial: Path, expected: str | None, progress: Progress | None) -> None:
    if urlsplit(file.url).scheme not in ("http", "https"):
        raise DataError(f"{file.name}: its address must be http or https, not {file.url}")
    tag = _tag_of(partial)
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": "fpmtools"}
    # Two halves of different files are told apart by the checksum, or else by the server's tag.
    if have and (expected is not None or tag.is_file()):
        headers["Range"] = f"bytes={have}-"
        if tag.is_file():
            headers["If-Range"] = tag.read_text()
    try:
        with urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=_TIMEOUT_S) as reply:
            if reply.status != 206:
                have = 0
            etag = reply.headers.get("ETag", "")
            if etag.startswith('"'):  # a weak tag does not promise the same bytes
                tag.write_text(etag)
            else:
                tag.unlink(missing_ok=True)
            length = reply.headers.get("Content-Length")
            total = have + int(length) if length else None
            with partial.open("ab" if have else "wb") as out:
                have = _pour(
                    reply, out, have, total, lambda done: progress(file.name, done, total) if progress else None
                )
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:  # there is nothing after what we have: complete, or too long
            if expected is None:
                partial.unlink()
                raise DataError(f"{file.name}: the download could not be continued; run it again") from None
            return
        raise DataError(f"{file.name}: the server answered {error.code} {error.reason} for {file.url}") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{file.name}: download failed ({reason}); run it again to continue, or copy files that you have (the "
            "option from)"
        ) from None
    if total is not None and have != total:
        raise DataError(f"{file.name}: the connection ended after {have} of {total} bytes; run it again to continue")


def _pour(reply: IO[bytes], out: IO[bytes], have: int, total: int | None, report: Callable[[int], None]) -> int:
    while chunk := reply.read(_CHUNK):
        out.write(chunk)
        have += len(chunk)
        report(have)
    return have


def _tag_of(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _read_sums(base: Path) -> dict[str, str]:
    try:
        return dict(json.loads((base / FIRST_SEEN).read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{base / FIRST_SEEN}: cannot be read ({error}); remove it to begin anew") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
