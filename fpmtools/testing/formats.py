"""The promises of a format's reader or writer, as tests that its author can run.

Subclass in a test file of your own and run pytest::

    from fpmtools.testing.formats import ReaderConformance, WriterConformance

    class TestMyWriter(WriterConformance):
        writer = "my-format"

        def read(self, path):
            return somebody_elses_program.read(path)  # [z, channel, y, x]

    class TestMyReader(ReaderConformance):
        reader = "my-format"

        def make(self, folder, images):
            return somebody_elses_program.write(folder / "a.mine", images)
"""

from __future__ import annotations

import dataclasses
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from fpmtools.errors import FpmError, OptionError
from fpmtools.formats import load, sources, writing
from fpmtools.formats.channels import channel as known_channel
from fpmtools.formats.recording import Wanted
from fpmtools.formats.volume import Volume, in_planes
from fpmtools.optics import Box
from fpmtools.registry import format_function

EVEN, UNEVEN, ONE = (-1.0, 0.5, 2.0), (0.0, 0.25, 7.0), (-3.5,)
HOSTILE = "../../a<b>&\"'%s\\x1b[31m\u202e ü µ"
OPTICS = {"na": 0.1, "magnification": 4.0, "camera_pixel_um": 3.45, "wavelength_um": 0.5}


def small_volume(
    z_um: Sequence[float] = EVEN, shape: tuple[int, int] = (30, 43), name: str = "sample", seed: int = 0
) -> Volume:
    """Random planes that all differ, with pixels of 0.25 × 0.5 µm at a wavelength of 0.5 µm."""
    channels = tuple(known_channel(each, 0.5) for each in ("amplitude", "phase", "path"))

    def plane(z: float) -> NDArray[np.complex64]:
        rng = np.random.default_rng([seed, list(z_um).index(z)])
        amplitude, phase = rng.uniform(0.5, 1.5, shape), rng.uniform(-1, 1, shape)
        return np.asarray(amplitude * np.exp(1j * phase), dtype=np.complex64)

    return Volume(name, shape, (0.25, 0.5), tuple(z_um), in_planes(plane), channels, 0.5)


class WriterConformance(ABC):
    """What fpmtools and its users rely on in every writer.

    Attributes
    ----------
    writer
        Name of an installed writer.
    """

    writer: ClassVar[str]

    @abstractmethod
    def read(self, path: Path) -> NDArray[Any] | None:
        """What is in a file, best by another program than the writer uses.

        Complex [z, y, x] where it holds the field, real [z, channel, y, x] where it holds channels; None of pictures.
        """

    def supplied(self) -> writing.Writer:
        """The writer under test."""
        return writing.writer_for(Path("a"), self.writer)

    def path(self, folder: Path) -> Path:
        """A name for a file of this format."""
        return folder / f"a{next(iter(self.supplied().record.suffixes), '')}"

    def test_its_suffixes_lead_to_it(self) -> None:
        """Each suffix of the record means this format, in lower and in upper case."""
        for suffix in self.supplied().record.suffixes:
            for name in (f"a{suffix}", f"a b.c{suffix.upper()}"):
                assert writing.writer_for(Path(name)).record.name == self.writer, name

    @pytest.mark.parametrize("z_um", [EVEN, UNEVEN, ONE], ids=["even", "uneven", "one"])
    @pytest.mark.parametrize("shape", [(30, 43), (41, 12), (5, 300)], ids=str)
    def test_what_was_written_is_there(self, z_um: tuple[float, ...], shape: tuple[int, int], tmp_path: Path) -> None:
        """Every number of every plane comes back, or what one file cannot hold is refused before it is begun."""
        supplied, volume, path = self.supplied(), small_volume(z_um, shape), self.path(tmp_path)
        if len(z_um) > 1 and not supplied.record.stacks:
            with pytest.raises(OptionError):
                writing.check(supplied, path, len(z_um), None)
            return
        told = writing.write(supplied, path, volume)
        assert all(line.strip() for line in told)
        assert [found.name for found in tmp_path.iterdir()] == [path.name], "there must be this and nothing else"
        assert path.is_dir() == bool(supplied.record.folder)
        self._compare(path, volume, rtol=1e-6, atol=1e-6)

    def _compare(self, path: Path, volume: Volume, rtol: float, atol: float) -> None:
        """Every number that the format holds is there; real ones within these limits."""
        found, holds = self.read(path), self.supplied().record.holds
        if holds == "complex":
            assert found is not None
            np.testing.assert_array_equal(found, list(volume.planes()))
        elif holds == "real":
            assert found is not None
            expected = [[channel.of(plane) for channel in volume.channels] for plane in volume.planes()]
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)

    def test_planes_are_taken_one_at_a_time(self, tmp_path: Path) -> None:
        """A stack need not fit into memory: planes are asked for in turn, once, and not kept."""
        supplied, source = self.supplied(), small_volume(tuple(map(float, range(8))))
        if not supplied.record.stacks:
            pytest.skip("holds one plane")
        asked: list[float] = []
        alive: weakref.WeakValueDictionary[int, NDArray[Any]] = weakref.WeakValueDictionary()

        def plane(z_um: float) -> NDArray[np.complex64]:
            assert len(alive) <= 2, f"{len(alive)} planes are kept"
            asked.append(z_um)
            made = source.plane(z_um).copy()
            alive[len(asked)] = made
            return made

        writing.write(supplied, self.path(tmp_path), dataclasses.replace(source, part=in_planes(plane)))
        if supplied.record.holds != "picture":  # one may look twice for its contrast
            assert asked == list(source.z_um), "each plane once, in order: to make one may take long"

    def test_a_source_of_parts_is_written_as_a_whole_one(self, tmp_path: Path) -> None:
        """A mosaic gives parts of its planes, which are asked for within its field, and are only read."""
        supplied, path, shape = self.supplied(), self.path(tmp_path), (270, 301)
        whole = small_volume(EVEN[:2] if supplied.record.stacks else ONE, shape)

        def part(z_um: float, box: Box) -> NDArray[np.complex64]:
            y, x, height, width = box
            assert min(y, x) >= 0 < min(height, width), f"{box} is empty, or begins outside"
            assert (y + height <= shape[0], x + width <= shape[1]) == (True, True), f"{box} ends outside of {shape}"
            found = whole.part(z_um, box)
            found.setflags(write=False)
            return found

        writing.write(supplied, path, dataclasses.replace(whole, part=part, tile=(100, 130)))
        self._compare(path, whole, rtol=1e-5, atol=1e-3)

    def test_what_fails_leaves_nothing_and_what_was_there_stays(self, tmp_path: Path) -> None:
        """A file is complete or absent; an older one is replaced by a complete one only."""
        supplied, path = self.supplied(), self.path(tmp_path)
        z_um = EVEN if supplied.record.stacks else ONE
        good = small_volume(z_um)

        def plane(z: float) -> NDArray[np.complex64]:
            if z == z_um[-1]:
                raise OptionError("no such plane")
            return good.plane(z)

        broken = dataclasses.replace(good, part=in_planes(plane))
        with pytest.raises(OptionError, match="no such plane"):
            writing.write(supplied, path, broken)
        assert list(tmp_path.iterdir()) == [], "something was left"
        writing.write(supplied, path, good)
        before = content(path)
        with pytest.raises(OptionError, match="no such plane"):
            writing.write(supplied, path, broken)
        assert content(path) == before, "the older file was touched"
        writing.claim(supplied, path, force=True)
        writing.write(supplied, path, small_volume(z_um, (12, 17)))
        assert content(path) != before
        assert [found.name for found in tmp_path.iterdir()] == [path.name]

    def test_a_name_is_only_text(self, tmp_path: Path) -> None:
        """A name that looks like a path, a tag or a format changes no other file and stops nothing."""
        supplied, folder = self.supplied(), tmp_path / "inner" / "most"
        folder.mkdir(parents=True)
        writing.write(supplied, self.path(folder), small_volume(ONE, name=HOSTILE))
        assert [found.name for found in tmp_path.iterdir()] == ["inner"]
        assert [found.name for found in folder.parent.iterdir()] == ["most"]
        assert [found.name for found in folder.iterdir()] == [self.path(folder).name]
        self.read(self.path(folder))


class ReaderConformance(ABC):
    """What fpmtools and its users rely on in every reader.

    Attributes
    ----------
    reader
        Name of an installed reader.
    """

    reader: ClassVar[str]

    @abstractmethod
    def make(self, folder: Path, images: NDArray[np.uint16]) -> Path:
        """A file of this format in ``folder`` with these images, [led, y, x], best made by another program."""

    @pytest.mark.parametrize("shape", [(5, 24, 30), (7, 31, 18), (1, 20, 26)], ids=str)
    def test_images_come_back_as_they_are(self, shape: tuple[int, int, int], tmp_path: Path) -> None:
        """All images, in their order, rows as y, bit for bit; the file is only read."""
        images = small_images(shape)
        path = self.make(tmp_path, images)
        before = content(tmp_path)
        leds = [[0.03 * k, 0.01] for k in range(shape[0])]
        data = load(path, format=self.reader, leds=leds, optics=OPTICS)
        np.testing.assert_array_equal(np.asarray(data.intensities), images)
        np.testing.assert_allclose(data.na, leds)
        assert content(tmp_path) == before, "the file was changed"

    def test_it_is_found_without_its_name(self, tmp_path: Path) -> None:
        """By its content, or by its suffix."""
        path, leds = self.make(tmp_path, small_images((5, 24, 30))), [[0.03 * k, 0.01] for k in range(5)]
        data = load(path, leds=leds, optics=OPTICS)
        np.testing.assert_array_equal(np.asarray(data.intensities), small_images((5, 24, 30)))

    def test_it_says_nothing_that_it_does_not_know(self, tmp_path: Path) -> None:
        """Numbers of the microscope are those of the contract, positive; the name can be shown."""
        path = self.make(tmp_path, small_images((5, 24, 30)))
        found = format_function(sources.reader_named(self.reader))(path, Wanted(format=self.reader))
        known = {"wavelength_um", "na", "magnification", "camera_pixel_um", "medium_index", "pixel_um"}
        assert set(found.optics) <= known
        assert all(value > 0 for value in found.optics.values())
        assert found.name.isprintable()

    @pytest.mark.parametrize("kept", [0.0, 0.1, 0.6])
    def test_a_file_that_is_cut_off_is_one_line(self, kept: float, tmp_path: Path) -> None:
        """A damaged file is an FpmError of one line."""
        path = self.make(tmp_path, small_images((5, 24, 30)))
        for file in [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]:
            file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
        with pytest.raises(FpmError) as refused:
            load(path, format=self.reader, leds=[[0.03 * k, 0.01] for k in range(5)], optics=OPTICS)
        assert "\n" not in str(refused.value)


def small_images(shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """Images [led, y, x] of which no two pixels of a column or row are alike."""
    return np.random.default_rng(0).permutation(np.arange(1, 1 + np.prod(shape), dtype=np.uint16)).reshape(shape)


def content(path: Path) -> dict[str, bytes]:
    """Every file at and below ``path``, but for what says when it was written."""
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
