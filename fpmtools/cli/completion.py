"""``fpmtools completion``: the script by which a shell completes commands, options, solvers and data sets."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from fpmtools.cli._output import write

WHERE = {
    "bash": 'eval "$(fpmtools completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(fpmtools completion zsh)" in ~/.zshrc, after compinit',
    "fish": "fpmtools completion fish > ~/.config/fish/completions/fpmtools.fish, once",
}

AS_WORDS = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}  # bash takes sim:tilted for three words otherwise\n"


@click.command(
    short_help="Let the shell complete names.",
    epilog="\b\n" + "\n".join(f"{shell:<5} {line}" for shell, line in WHERE.items()),
)
@click.argument("shell", type=click.Choice(list(WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, solvers and data sets."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "fpmtools", "_FPMTOOLS_COMPLETE").source()
    write(f"{script}\n{AS_WORDS if shell == 'bash' else ''}")
