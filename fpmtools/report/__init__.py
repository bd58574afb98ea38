"""What a user sees of a run: figures, the video through z, and the folder that holds everything."""

from __future__ import annotations

from fpmtools.records import WriterRecord
from fpmtools.registry import hookimpl


@hookimpl
def fpmtools_writers() -> list[WriterRecord]:
    """Announce the formats that are looked at."""
    return [
        WriterRecord(
            name="png",
            summary="a figure of amplitude and phase, with scale bar and colour bars; several colours as one sees them",
            write="fpmtools.report.pictures:write_png",
            suffixes=(".png",),
            holds="picture",
            stacks=False,
            colours=True,
        ),
        WriterRecord(
            name="gif",
            summary="a film through z, amplitude and phase side by side",
            write="fpmtools.report.pictures:write_gif",
            suffixes=(".gif",),
            holds="picture",
        ),
        WriterRecord(
            name="mp4",
            summary="the same film as H.264 (extra video)",
            write="fpmtools.report.pictures:write_mp4",
            suffixes=(".mp4",),
            holds="picture",
        ),
    ]
