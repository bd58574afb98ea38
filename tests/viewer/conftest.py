"""Results to look at, never square, and a real server with its requests."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fpmtools.dataset import Dataset
from fpmtools.leds import direction_sines, raster
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.simulation import simulate
from fpmtools.viewer.regions import Kept
from fpmtools.viewer.scene import Scene
from fpmtools.viewer.server import Server
from fpmtools.viewer.sources import FieldSource, ImageSource, Lights

Z = (-2.0, 0.0, 3.0)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """9 LEDs, 18 × 25 pixels, on a tilted plane of ±2 µm, with its truth of 36 × 50."""
    return simulate("tilted", image_shape=(18, 25), leds=direction_sines(raster(3, 3, 9.0), 74.0), tilt_um=2.0)


def smooth(shape: tuple[int, int], seed: int = 0, turns: float = 0.4) -> NDArray[np.complex64]:
    """A smooth complex field; with several ``turns`` its phase wraps."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(0, 1, n) for n in shape)
    amplitude = 1 + 0.3 * np.cos(2 * np.pi * (2 * y[:, None] + 3 * x)) + 0.02 * rng.normal(size=shape)
    phase = 2 * np.pi * turns * (y[:, None] ** 2 + 0.7 * x)
    return (amplitude * np.exp(1j * (phase + seed))).astype(np.complex64)


@pytest.fixture(scope="module")
def stack() -> PlaneStack:
    """36 × 50 pixels over the data's field of view, three planes, a phase that wraps."""
    planes = np.stack([smooth((36, 50), k, 1.6) for k in range(3)])
    return PlaneStack(planes, Z, Grid((36, 50), (18 * 0.345, 25 * 0.345), (Z[0], Z[-1])))


@pytest.fixture(scope="module")
def scene(stack: PlaneStack, dataset: Dataset) -> Iterator[Scene]:
    """The stack (0), a result of 700 × 1101 pixels without a name for its z (1), raw images (2)."""
    kept = Kept()
    lights = Lights(dataset.na, dataset.calibration.used, dataset.optics.na, dataset.optics.wavelength_um)
    large = PlaneStack(smooth((700, 1101))[None], (1.5,), Grid((700, 1101), (70.0, 110.1), (1.5, 1.5)))
    sources = [
        FieldSource.of(stack, "stack", kept, lights=lights),
        FieldSource.of(large, "large", kept),
        ImageSource.of(dataset, "raw images", kept, lights=lights),
    ]
    scene = Scene(sources, "test")
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def server(scene: Scene) -> Iterator[Server]:
    """It runs until the test is over."""
    with Server(scene) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ask(server: Server) -> Ask:
    """``ask(path)`` with the cookie that the page has; ``headers`` replace those that would be sent."""

    def request(path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes = b"") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        sent = {"Host": f"127.0.0.1:{server.port}", "Cookie": f"{server.cookie}={server.token}"}
        sent = sent if headers is None else {"Host": sent["Host"], **headers}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        found = Answer(answer.status, dict(answer.headers.items()), answer.read())
        connection.close()
        return found

    return request


@pytest.fixture
def saved(stack: PlaneStack, tmp_path: Path) -> Path:
    """The stack in a file."""
    return stack.save(tmp_path / "stack.safetensors")
