"""``fpmtools help``: the same as --help, for those who type it so."""

from __future__ import annotations

import click

from fpmtools.cli._output import echo
from fpmtools.errors import unknown


@click.command(short_help="The options of a command.")
@click.argument("names", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show the help of COMMAND, such as run or data fetch, or this overview."""
    context = ctx.find_root()
    for name in names:
        group = context.command
        known = group.list_commands(context) if isinstance(group, click.Group) else []
        found = group.get_command(context, name) if isinstance(group, click.Group) else None
        if found is None:
            raise unknown("command", name, known)
        context = click.Context(found, info_name=name, parent=context)
    echo(context.get_help())
