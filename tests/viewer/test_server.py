"""Who is answered, and what: real requests to a running server."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fpmtools.errors import OutputError
from fpmtools.reconstruction import PlaneStack
from fpmtools.viewer.regions import Kept
from fpmtools.viewer.scene import Scene
from fpmtools.viewer.server import ANSWERS, FILES, Server
from fpmtools.viewer.sources import FieldSource

TILE = {"source": 0, "layer": "amplitude", "at": 0, "level": 0, "x": 0, "y": 0, "low": 0, "high": 1.4}


def address(what: str = "/tile", **changes: Any) -> str:
    return f"{what}?{urlencode({**TILE, **changes})}"


def test_a_tile_is_the_field(ask: Any, stack: PlaneStack) -> None:
    answer = ask(address(at=0.73))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    tile = np.asarray(Image.open(io.BytesIO(answer.body)), float)
    expected = np.clip(np.rint(np.abs(stack.field(0.73)) / 1.4 * 255), 0, 255)
    assert tile.shape == (36, 50)
    assert np.abs(tile - expected).max() <= 1


@pytest.mark.parametrize("path", [*FILES, *ANSWERS, "/nowhere"])
@pytest.mark.parametrize("cookie", [None, "fpmtools_{port}=", "fpmtools_{port}=wrong", "other={token}", "\x00=\xff;;,"])
def test_without_the_token_nothing_is_answered(ask: Any, server: Server, path: str, cookie: str | None) -> None:
    headers = {} if cookie is None else {"Cookie": cookie.format(port=server.port, token=server.token)}
    answer = ask(path, headers)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers
    assert len(answer.body) < 100


def test_an_answer_leaves_in_one_piece(server: Server) -> None:
    """Two small packets on a kept connection would wait for each other: the second is held back for 40 ms."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 403")
            assert body.endswith(b"with its token.\n")


def test_the_token_opens_the_page_and_leaves_a_cookie(ask: Any, server: Server) -> None:
    answer = ask(f"/?token={server.token}", {})
    assert answer.status == 200
    assert b"<title>fpmtools" in answer.body
    cookie, *words = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(words)
    assert ask("/scene", {"Cookie": cookie}).status == 200
    assert server.url == f"http://127.0.0.1:{server.port}/?token={server.token}"
    assert len(server.token) >= 32
    assert ask(f"/?token={server.token[:-1]}", {}).status == 403
    assert ask("/?token=%C3%A9", {}).status == 403
    assert ask(f"/scene?token={server.token}", {}).status == 403  # the address of the page only


def test_a_ticket_opens_the_page_once(ask: Any, server: Server) -> None:
    """What a browser is started with can be read by others on the machine."""
    path = server.url_for_once().removeprefix(f"http://127.0.0.1:{server.port}")
    assert server.token not in path
    first = ask(path, {})
    assert first.status == 200
    assert ask("/scene", {"Cookie": first.headers["Set-Cookie"].split(";")[0]}).status == 200
    assert ask(path, {}).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_ports_get_nothing(ask: Any, server: Server, site: str) -> None:
    """Cookies go to all ports of a host: the browser says who asks."""
    cookie = {"Cookie": f"{server.cookie}={server.token}"}
    assert ask("/scene", {**cookie, "Sec-Fetch-Site": site}).status == 403
    assert ask("/app.js", {**cookie, "Sec-Fetch-Site": site}).status == 403
    assert ask("/", {**cookie, "Sec-Fetch-Site": site}).status == 200
    assert ask("/scene", {**cookie, "Sec-Fetch-Site": "same-origin"}).status == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "LOCALHOST.:{port}"]
)
def test_other_hosts_are_refused(ask: Any, server: Server, host: str) -> None:
    """A name of somebody's that points here must not be taken for this machine."""
    cookie = f"{server.cookie}={server.token}"
    for path in (f"/?token={server.token}", "/scene"):
        assert ask(path, {"Host": host.format(port=server.port), "Cookie": cookie}).status == 421
    assert ask("/scene", {"Host": f"localhost:{server.port}", "Cookie": cookie}).status == 200


def test_it_listens_on_this_machine_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with Server(server.scene) as other:
        assert other.port != server.port
        assert other.token != server.token
        assert other.cookie != server.cookie
    with pytest.raises(OutputError, match=f"port {server.port}"):
        Server(server.scene, server.port)


@pytest.mark.parametrize("path", [*FILES, "/scene", "/tile", "/nowhere"])
def test_every_answer_forbids_what_the_page_does_not_need(ask: Any, path: str) -> None:
    for headers in (None, {}):
        told = ask(path, headers).headers
        assert "default-src 'none'" in told["Content-Security-Policy"]
        assert "unsafe" not in told["Content-Security-Policy"]
        assert "http" not in told["Content-Security-Policy"]
        assert told["X-Content-Type-Options"] == "nosniff"
        assert told["Referrer-Policy"] == "no-referrer"
        assert told["Cross-Origin-Resource-Policy"] == "same-origin"
        assert told["Cache-Control"] == "no-store"
        assert not [name for name in told if name.startswith("Access-Control")]
        assert "python" not in told["Server"].lower()


@pytest.mark.parametrize(
    "path",
    [
        "/../scene.py",
        "/%2e%2e/scene.py",
        "/page/index.html",
        "/index.html",
        "//etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/openseadragon.min.js/../../server.py",
        "/viewer.css%00.txt",
        "/viewer.css/",
        "http://127.0.0.1/viewer.css/../x",
        "*",
    ],
)
def test_only_the_files_of_the_page_are_served(ask: Any, path: str) -> None:
    answer = ask(path)
    assert answer.status in {400, 404}
    assert b"root:" not in answer.body
    assert b"def " not in answer.body


def test_the_files_of_the_page_are_all_there(ask: Any) -> None:
    for path, (_, kind) in FILES.items():
        answer = ask(path)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(kind)
        assert len(answer.body) > 200
    assert (
        b"BSD" in ask("/openseadragon.LICENSE.txt").body or b"Redistribution" in ask("/openseadragon.LICENSE.txt").body
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"source": 3},
        {"source": -1},
        {"source": "x"},
        {"source": 1e300},
        {"source": "nan"},
        {"layer": "<script>"},
        {"at": "inf"},
        {"at": "nan"},
        {"at": "1e999"},
        {"level": -1},
        {"level": 10**12},
        {"level": 1},
        {"x": 1},
        {"y": -1},
        {"x": 2**40},
        {"low": 2},
        {"high": "inf"},
        {"high": ""},
        {"colours": "jet"},
    ],
)
def test_absurd_words_are_refused(ask: Any, changes: Mapping[str, Any]) -> None:
    answer = ask(address(**changes))
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "\n" not in json.loads(answer.body)["error"]


def test_addresses_that_are_none(ask: Any) -> None:
    assert ask("/tile?" + "x=1&" * 50).status == 400
    assert ask("/scene?" + "a" * 5000).status == 414
    assert ask("/scene?" + "a" * 70000).status == 414
    assert ask("/at?source=0").status == 400
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"):
        answer = ask("/scene", method=method)
        assert answer.status == 501
        assert "Content-Security-Policy" in answer.headers
    head = ask("/scene", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(ask("/scene").body)


def test_what_is_no_http_at_all(ask: Any, server: Server) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\n" * 100,
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
            line.sendall(garbage)
            line.shutdown(socket.SHUT_WR)
            while line.recv(4096):
                pass
    assert ask("/scene").status == 200


def test_many_at_once_get_each_what_it_asked_for(ask: Any) -> None:
    z = [k % 5 - 1.9 for k in range(40)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda at: ask(address(at=at)), z))
    assert {answer.status for answer in answers} == {200}
    alone = {at: ask(address(at=at)).body for at in set(z)}
    assert [answer.body for answer in answers] == [alone[at] for at in z]


def test_numbers(ask: Any, stack: PlaneStack) -> None:
    scene = json.loads(ask("/scene").body)
    assert [source["name"] for source in scene["sources"]] == ["stack", "large", "raw images"]
    assert scene["sources"][0]["z_range"] == [-2, 3]
    assert scene["sources"][1]["layers"]["amplitude"]["levels"] == 3
    assert len(scene["sources"][2]["lights"]["na"]) == 9
    value = json.loads(ask(address("/at", x=3, y=5)).body)["amplitude"]["value"]
    assert value == pytest.approx(float(stack.amplitude(0.0)[5, 3]), rel=1e-6)
    line = json.loads(ask(address("/profile", x0=0, y0=4, x1=49, y1=4)).body)
    assert line["values"] == pytest.approx(stack.amplitude(0.0)[4], rel=1e-5)
    scale = json.loads(ask(address("/scale", layer="phase")).body)
    assert scale["colours"] == "cyclic"


def test_a_result_that_raises_is_told_of_and_ends_nothing(stack: PlaneStack) -> None:
    class Broken(PlaneStack):
        def native_field(self, z_um: float) -> NDArray[np.complex64]:
            raise RuntimeError("out of\nluck")

    told: list[str] = []
    scene = Scene([FieldSource.of(Broken(stack.planes, stack.z_um, stack.grid), "broken", Kept())])
    with Server(scene, on_error=told.append) as server:
        import http.client
        import threading

        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for path, status in ((address(), 500), ("/scene", 200), (address(), 500)):
            line.request("GET", path, headers={"Cookie": f"{server.cookie}={server.token}"})
            answer = line.getresponse()
            body = answer.read()
            assert answer.status == status
            assert status == 200 or json.loads(body)["error"] == "unexpected RuntimeError: out of\\x0aluck"
        line.close()
        server.shutdown()
        thread.join()
    scene.close()
    assert len(told) == 2
    assert "RuntimeError" in told[0]
