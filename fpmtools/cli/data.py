"""``fpmtools data``: known data sets, and what is in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from fpmtools.cli import _complete, _inputs
from fpmtools.cli._output import (
    describe,
    echo,
    is_terminal,
    print_description,
    print_json,
    print_table,
    visible,
    write,
)
from fpmtools.columns import size


@click.group(invoke_without_command=True, short_help="List, describe and fetch data sets.")
@click.pass_context
def data(ctx: click.Context) -> None:
    """List, describe and fetch data sets."""
    if ctx.invoked_subcommand is None:
        echo(ctx.get_help())


@data.command("list", short_help="List what can be named.")
@_inputs.json_option
def list_(as_json: bool) -> None:
    """The simulated samples and the published data sets that fpmtools knows."""
    from fpmtools import catalogue
    from fpmtools.formats import manifest

    samples = {name: f"simulated: {title}" for name, title in catalogue.entries().items()}
    variants = {name: title for name, (title, _) in catalogue.VARIANTS.items()}
    rows: list[dict[str, Any]] = [
        {"name": name, "title": title, "here": True, "licence": "", "bytes": None} for name, title in samples.items()
    ]
    for entry in manifest.entries():
        files = manifest.local_files(entry)
        stored = None if files is None else sum(file.stat().st_size for file in files)
        about = {"name": entry.name, "title": entry.title, "here": files is not None, "licence": entry.licence}
        rows.append({**about, "bytes": stored})
    folder = next((str(folder) for folder in manifest.data_dirs()), None)
    if as_json:
        print_json({"folder": folder, "data": rows, "variants": variants})
        return
    places = [[r["name"], _place(r["here"], r["bytes"]), r["title"]] for r in rows]
    print_table(["name", "here", "what"], places)
    echo(
        "\nSimulated ones take variants, and a size in pixels: sim:tilted@128 (square),\nsim:tilted+noise+tile@96x128."
    )
    print_table(["variant", "what"], [[f"+{name}", title] for name, title in variants.items()])
    echo(f"\nFetched data are kept in {folder or 'no folder yet'} (set FPMTOOLS_DATA for another).")


@data.command(short_help="Describe a data set or a file.")
@click.argument("name", metavar="NAME|PATH", shell_complete=_complete.data)
@_inputs.reading_options
@_inputs.json_option
def info(name: str, as_json: bool, **reading: Any) -> None:
    """What a data set holds, what can be recovered from it, and what is wrong with it."""
    from fpmtools.formats import manifest

    entry = next((entry for entry in manifest.entries() if entry.name == name), None)
    about: dict[str, Any] = {}
    if entry is not None:
        about = entry.to_dict()
        about["files"] = [
            f"{file.name} ({'SHA-256 known' if file.sha256 else 'no SHA-256 known'})" for file in entry.files
        ]
        about = {key: value for key, value in about.items() if value not in (None, "", {})}
    if entry is None or manifest.local_files(entry) is not None:
        about |= describe(_inputs.load(name, _inputs.take_reading(reading)))
    elif not as_json:
        echo(f"not on this machine: 'fpmtools data fetch {name}' gets it\n")
    if as_json:
        print_json(about)
    else:
        print_description(about)


@data.command(short_help="Get a published data set, checksums verified.")
@click.argument("name", shell_complete=_complete.published)
@click.option("--from", "source", type=click.Path(path_type=Path), metavar="DIR", help="Copy from here; no network.")
@click.option(
    "--to", "dest", type=click.Path(path_type=Path), metavar="DIR", help="Data folder (default: $FPMTOOLS_DATA)."
)
@_inputs.quiet_option
@_inputs.json_option
def fetch(name: str, source: Path | None, dest: Path | None, quiet: bool, as_json: bool) -> None:
    """Get a published data set and verify its checksums; an interrupted download is continued."""
    from fpmtools.formats import manifest

    entry = manifest.find(name)
    fetched = manifest.fetch(entry, dest, source, _show_bytes if is_terminal(sys.stderr) and not quiet else None)
    if as_json:
        print_json(vars(fetched) | {"folder": str(fetched.folder)})
        return
    echo(f"{fetched.folder}: {len(fetched.brought)} new, {len(entry.files) - len(fetched.brought)} already here")
    for file, sha256 in fetched.first_seen.items():
        echo(f"{file}: no checksum was published; recorded the first one seen, {sha256}")
    echo(f"licence: {entry.licence}\ncite: {entry.citation}")


def _place(here: bool, stored: int | None) -> str:
    """Whether a data set can be used at once, with its size on the disk."""
    return size(stored) if stored is not None else "yes" if here else ""


def _show_bytes(name: str, done: int, total: int | None) -> None:
    of = f" of {size(total)}" if total else ""
    write(f"\r{visible(name)}  {size(done)}{of}\033[K" + ("\n" if done == total else ""), err=True)
