"""What commands keep apart: their own stdout."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRINTING = """
import os, sys, threading
from fpmtools.processes import private_stdout
with private_stdout() as out:
    print("from Python")
    os.write(1, b"from below\\n")
    thread = threading.Thread(target=lambda: print("from a thread"))
    thread.start(); thread.join()
    os.system("echo from a child")
    print("early", file=out)
print("late")
"""


def run(code: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_stdout_is_the_commands_own() -> None:
    done = run(PRINTING)
    assert done.stdout == "early\nlate\n"
    assert sorted(done.stderr.split("\n")) == ["", "from Python", "from a child", "from a thread", "from below"]


@pytest.mark.parametrize(("redirect", "printed"), [(">&-", ""), ("2>&-", "early\nlate\n")])
def test_stdout_is_the_commands_own_where_a_descriptor_is_closed(redirect: str, printed: str) -> None:
    done = run(PRINTING.replace('os.write(1, b"from below\\n")', "pass"), redirect)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_an_exception_gives_stdout_back() -> None:
    code = """if True:
        from fpmtools.processes import private_stdout
        try:
            with private_stdout():
                raise ValueError
        except ValueError:
            print("back")
    """
    assert run(code).stdout == "back\n"
