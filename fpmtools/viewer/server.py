"""The page's server: one scene, to whoever has the token, on this machine only.

Every answer needs the token: in the address of the page (``/?token=…``), which leaves a cookie for what the page asks
for later. A host other than this one in the request is refused, which is how a name that a stranger's server has made
to point here would come. The page may load nothing from elsewhere, and nothing elsewhere may load from here.
"""

from __future__ import annotations

import hmac
import importlib.resources
import secrets
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fpmtools.errors import FpmError, OptionError, OutputError, printable
from fpmtools.storage import to_json
from fpmtools.viewer.scene import Scene

HOST = "127.0.0.1"
FILES = {  # all of the page, and the only files that are ever read
    "/": ("index.html", "text/html"),
    "/viewer.css": ("viewer.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/pane.js": ("pane.js", "text/javascript"),
    "/panels.js": ("panels.js", "text/javascript"),
    "/state.js": ("state.js", "text/javascript"),
    "/openseadragon.min.js": ("openseadragon.min.js", "text/javascript"),
    "/openseadragon.LICENSE.txt": ("openseadragon.LICENSE.txt", "text/plain"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
# The one rule for focus on touch screens that OpenSeadragon 6.1.1 puts into the page itself.
OWN_RULE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' '{OWN_RULE}'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
IDLE_S = 60.0  # after which a connection that asks for nothing is closed
LONGEST = 4096  # characters of an address


class Server(ThreadingHTTPServer):
    """Serves ``scene`` at :attr:`url`, on a free port unless one is given.

    ``on_error`` is told of what should not have happened, one line each. Raises :class:`OutputError` where the port is
    taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, scene: Scene, port: int = 0, on_error: Callable[[str], object] = lambda line: None) -> None:
        self.scene, self.on_error = scene, on_error
        self.token = secrets.token_urlsafe(24)
        self._tickets: set[str] = set()
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise OutputError(f"port {port} of {HOST} cannot be used: {error.strerror or error}") from error
        self.port = int(self.server_address[1])
        self.hosts = {f"{name}:{self.port}" for name in (HOST, "localhost")}
        # Cookies are shared by all ports of a host: each server has one of its own.
        self.cookie = f"fpmtools_{self.port}"

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def url_for_once(self) -> str:
        """An address that opens the page once: others on the machine can read what a browser is started with."""
        ticket = secrets.token_urlsafe(24)
        self._tickets.add(ticket)
        return f"http://{HOST}:{self.port}/?token={ticket}"

    def opens(self, token: str) -> bool:
        """Whether this token opens the page; a ticket does once."""
        try:
            self._tickets.remove(token)
        except KeyError:
            return self.knows(token)
        return True

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has closed its connection is no error."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fpmtools", ""
    timeout = IDLE_S
    # Head and body leave together: the kernel would hold a second packet back until the first is acknowledged, 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer."""
        status, kind, body, more = self._answer()
        self._send(status, kind, body, more)

    do_HEAD = do_GET

    def _answer(self) -> tuple[int, str, bytes, Mapping[str, str]]:
        if self.headers.get("Host", "") not in self.server.hosts:
            return 421, "text/plain", b"This server answers to its own address only.\n", {}
        if len(self.path) > LONGEST:
            return 414, "text/plain", b"This address is too long.\n", {}
        try:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=20).items()}
        except ValueError:
            return 400, "text/plain", b"This is no address.\n", {}
        more: Mapping[str, str] = {}
        if parts.path == "/" and self.server.opens(query.get("token", "")):
            more = {"Set-Cookie": f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"}
        elif not self.server.knows(self._sent()) or self._from_elsewhere(parts.path):
            return 403, "text/plain", b"Open the address that 'fpmtools view' has printed, with its token.\n", {}
        if parts.path in FILES:
            name, kind = FILES[parts.path]
            return 200, kind, _page_file(name), more
        answer = ANSWERS.get(parts.path)
        if answer is None:
            return 404, "text/plain", b"There is no such page.\n", {}
        try:
            kind, body = answer(self.server.scene, _Query(query))
            return 200, kind, body, {}
        except FpmError as error:
            return 400, *_json({"error": printable(error, 500)}), {}
        except Exception as error:  # a plugin's code may raise anything
            self.server.on_error(f"{parts.path}: {type(error).__name__}: {error}")
            return 500, *_json({"error": f"unexpected {type(error).__name__}: {printable(error, 500)}"}), {}

    def _sent(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def _from_elsewhere(self, path: str) -> bool:
        """Whether the browser says that a page of another port or site asks; the page itself may be linked to."""
        return path != "/" and self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}

    def _send(self, status: int, kind: str, body: bytes, more: Mapping[str, str]) -> None:
        self.send_response(status)
        text = kind.startswith(("text/", "application/json"))
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if text else kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no request that we know, with the same headers as everything else."""
        self.close_connection = True
        self._send(int(code), "text/plain", b"", {"Connection": "close"})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds the token."""


class _Query:
    """The words after the question mark, as what they should be."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words

    def text(self, name: str, default: str | None = None) -> str:
        if (found := self._words.get(name, default)) is None:
            raise OptionError(f"{name} is missing")
        return found

    def number(self, name: str) -> float:
        text = self.text(name)
        try:
            return float(text)
        except ValueError:
            raise OptionError(f"{name} {printable(text, 40)!r} is no number") from None

    def whole(self, name: str) -> int:
        value = self.number(name)
        if not abs(value) < 2**31 or value != int(value):
            raise OptionError(f"{name} {value:g} is no whole number")
        return int(value)

    def what(self) -> tuple[int, str, float]:
        """Which source, layer, and z or image."""
        return self.whole("source"), self.text("layer"), self.number("at")


def _tile(scene: Scene, query: _Query) -> tuple[str, bytes]:
    place = [query.whole(name) for name in ("level", "x", "y")]
    low, high, colours = query.number("low"), query.number("high"), query.text("colours", "gray")
    source, layer, at = query.what()
    level, x, y = place
    return "image/png", scene.tile(source, layer, at, level, x, y, low=low, high=high, colours=colours)


def _profile(scene: Scene, query: _Query) -> tuple[str, bytes]:
    x0, y0, x1, y1 = (query.number(name) for name in ("x0", "y0", "x1", "y1"))
    return _json(scene.profile(*query.what(), (x0, y0), (x1, y1)))


ANSWERS: dict[str, Callable[[Scene, _Query], tuple[str, bytes]]] = {
    "/scene": lambda scene, query: _json(scene.describe()),
    "/tile": _tile,
    "/scale": lambda scene, query: _json(scene.scale(*query.what())),
    "/at": lambda scene, query: _json(scene.at(*query.what(), query.whole("x"), query.whole("y"))),
    "/profile": _profile,
}


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", to_json(value)


def _page_file(name: str) -> bytes:
    return importlib.resources.files("fpmtools.viewer").joinpath("page", name).read_bytes()
