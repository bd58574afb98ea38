"""``fpmtools view``: results, comparisons and data sets in the browser, on this machine only."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import closing
from typing import Any

import click

from fpmtools.cli import _complete
from fpmtools.cli._groups import Grouped
from fpmtools.cli._inputs import absolute, reading_options, take_reading
from fpmtools.cli._output import echo


@click.command(cls=Grouped, short_help="Look at results, or raw images, in the browser.")
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, shell_complete=_complete.data)
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Port (default: one that is free).")
@click.option("--no-open", "opening", flag_value=False, default=True, help="Print the address, and open no browser.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", default=1, show_default=True, help="CPU threads.")
@reading_options
def view(paths: tuple[str, ...], port: int | None, opening: bool, threads: int, **reading: Any) -> None:
    """Look at PATH in the browser: at any z, amplitude, phase, colour, spectrum, raw images, with profiles in µm.

    PATH is a run's folder, a reconstruction.safetensors, a comparison's folder, or a data set (read as the options
    under Data say). Several are compared side by side. Everything stays on this machine; Ctrl-C ends it.
    """
    from fpmtools import threads as cpu

    cpu.announce(threads)
    from fpmtools.viewer import opening as found_in
    from fpmtools.viewer.scene import Scene
    from fpmtools.viewer.server import Server

    found_in.checked(paths)
    opened = found_in.opened([absolute(path) for path in paths], take_reading(reading))
    scene = Scene(opened.sources, found_in.described(paths), opened.notes)
    for note in opened.notes:
        echo(f"note: {note}", err=True)

    def warn(line: str) -> None:
        echo(f"warning: {line}", err=True)

    try:
        with cpu.limited(threads), closing(scene), Server(scene, port or 0, warn) as server:
            echo(server.url)
            echo("Ctrl-C ends it", err=True)
            if opening:
                threading.Thread(target=_open, args=[server.url_for_once()], daemon=True).start()
            server.serve_forever()
    except KeyboardInterrupt:
        echo("ended", err=True)


def _open(url: str) -> None:
    """In a thread of its own: a browser in the terminal returns when it is left, and waits for the page until then."""
    if not webbrowser.open(url):
        echo("note: no browser could be opened; open the address above", err=True)
