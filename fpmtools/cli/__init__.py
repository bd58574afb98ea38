"""The ``fpmtools`` command: one file per subcommand, loaded when it is used.

Results go to stdout, progress and errors to stderr. A user's mistake is one line and an exit code (``errors.py`` and
docs/commands.md), never a traceback; set FPMTOOLS_DEBUG=1 to see one all the same.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

import fpmtools
from fpmtools.cli._output import echo
from fpmtools.errors import EXIT_INTERRUPTED, FpmError, OptionError, OutputError, SolverError, printable, unknown
from fpmtools.processes import keep_torch_alone

COMMANDS = (
    "run",
    "inspect",
    "calibrate",
    "compare",
    "report",
    "render",
    "view",
    "evaluate",
    "solvers",
    "formats",
    "data",
    "simulate",
    "doctor",
    "completion",
    "help",
)


class _LazyGroup(click.Group):
    """Imports ``fpmtools.cli.<name>`` only when the command is named (or the overview is asked for)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"fpmtools.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(fpmtools.__version__, "-V", "--version", message="fpmtools %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Fourier ptychographic microscopy: any data set, any solver, compared honestly.

    \b
    fpmtools run                 reconstruct the built-in sample; no download, no options needed
    fpmtools compare             three built-in solvers side by side
    fpmtools COMMAND --help      the options of a command
    """
    if ctx.invoked_subcommand is None:
        echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` by default) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    keep_torch_alone()
    try:
        result = cli.main(words, prog_name="fpmtools", standalone_mode=False, obj=words)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "fpmtools"
        return _say(OptionError(f"{error.format_message().rstrip('.')} (see '{where} --help')"))
    except click.ClickException as error:
        return _say(OptionError(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 1  # the reader of stdout (head, less) has left
    except Exception as error:
        if os.environ.get("FPMTOOLS_DEBUG"):
            raise
        return _say(_explain(error))


def _explain(error: Exception) -> FpmError:
    """Any exception as an error with one line and an exit code."""
    if isinstance(error, FpmError):
        return error
    if isinstance(error, MemoryError):
        return SolverError("out of memory; use a smaller --roi, fewer --z planes, or a solver's batch options")
    if isinstance(error, OSError) and error.errno in {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
    }:
        return OutputError.of(error, error.filename)
    kind = type(error).__name__
    return FpmError(f"unexpected {kind}: {error} (set FPMTOOLS_DEBUG=1 to see where; please report it)")


def _say(error: FpmError) -> int:
    echo(f"error: {printable(' '.join(str(error).split()), 1000)}", err=True)
    return error.exit_code
