"""The command itself: prints an address, answers there, and Ctrl-C ends it with one line."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from fpmtools.cli import main


def test_it_answers_and_ends_with_ctrl_c(saved: Path) -> None:
    words = [sys.executable, "-m", "fpmtools", "view", str(saved), "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = urllib.parse.urlsplit(process.stdout.readline().strip())
        assert url.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", url.port or 0, timeout=30)
        connection.request("GET", f"{url.path}?{url.query}")
        answer = connection.getresponse()
        cookie = answer.headers["Set-Cookie"].split(";")[0]
        assert b"stack" not in answer.read()  # nothing of the data is in the page itself
        connection.request("GET", "/scene", headers={"Cookie": cookie})
        assert b'"stack"' in connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert told.splitlines() == ["Ctrl-C ends it", "ended"]


def test_it_opens_the_browser_at_an_address_that_works_once(saved: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    browser = tmp_path / "browser.py"
    browser.write_text(f"import sys; open({str(told)!r}, 'w').write(sys.argv[1])")
    words = [sys.executable, "-m", "fpmtools", "view", str(saved)]
    own = {**os.environ, "BROWSER": f"{sys.executable} {browser} %s"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own) as process:
        assert process.stdout is not None
        printed = process.stdout.readline().strip()
        for _ in range(300):
            if told.is_file() and told.read_text():
                break
            time.sleep(0.1)
        opened = told.read_text()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert opened.startswith(printed.partition("=")[0] + "=")
    assert opened != printed


def test_mistakes_are_one_line(tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (
        ([], 2),
        ([str(tmp_path / "nothing")], 3),
        ([str(saved), "--port", "0"], 2),
        (["sim:nothing"], 2),
    ):
        assert main(["view", *words, "--no-open"]) == code
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("error: ")
        assert told.err.count("\n") == 1
