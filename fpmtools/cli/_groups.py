"""A command whose help lists its options under headings, for those that have too many for one list."""

from __future__ import annotations

import click

from fpmtools.cli._inputs import READING

HEADINGS = {
    "Data": ("data", "data_names", *READING),
    "Solver": ("name", "solvers", "options", "preset", "loss", "z_um", "seed", "seeds", "repeats"),
    "Instrument": ("calibration", "calibrate", "trust_leds", "groups"),
    "Sampling": ("upsample", "critical_grid", "subpixel", "margin", "dtype"),
    "Colours": ("channels",),
    "Tiles": ("tiles", "overlap", "workers", "scheduler"),
    "Machine and limits": ("device", "threads", "budget_s", "targets", "timeout_s", "memory_bytes"),
    "Measuring": ("track", "held_out", "ring_correlation"),
    "Going on, and again": ("resume", "from_file"),
    "Output": ("out", "exact", "figure", "force", "preview", "quiet", "verbose", "progress", "as_json"),
}
REST = "Options"


def heading(parameter: click.Parameter) -> str:
    """The heading that a parameter stands under."""
    return next((title for title, names in HEADINGS.items() if parameter.name in names), REST)


class Grouped(click.Command):
    """Lists its options under :data:`HEADINGS`, those that stand under none of them last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title in (*HEADINGS, REST):
            options = (p for p in self.get_params(ctx) if isinstance(p, click.Option))  # the usage has the arguments
            shown = [p.get_help_record(ctx) for p in options if heading(p) == title]
            if rows := [row for row in shown if row is not None]:
                with formatter.section(title):
                    formatter.write_dl(rows)
