"""Twins of the layouts that real data come in, written from a simulation: what is read is what was simulated."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import arrays, load, preparing
from fpmtools.formats.chunks import ChunkedImages
from fpmtools.leds import direction_sines, raster
from fpmtools.simulation import simulate

Write = Callable[..., Path]
LEDS = direction_sines(raster(5, 4, 9.0) + np.array([1.5, -0.7]), 74.0)  # no symmetry, bright and dark field


@pytest.fixture(scope="module")
def oblong() -> Dataset:
    return simulate("thin", image_shape=(20, 24), leds=LEDS, tilt_um=0.0)


@pytest.fixture(scope="module")
def square() -> Dataset:
    return simulate("thin", image_shape=(24, 24), leds=LEDS, tilt_um=0.0)


def same(found: Dataset, twin: Dataset, tolerance: float = 1e-12) -> None:
    """The same images, LEDs and microscope."""
    np.testing.assert_allclose(found.intensities, twin.intensities, rtol=1e-6)
    np.testing.assert_allclose(found.na, twin.na, atol=tolerance)
    for name in ("wavelength_um", "na", "pixel_um"):
        assert getattr(found.optics, name) == pytest.approx(getattr(twin.optics, name)), name


def pages_last(data: Dataset) -> np.ndarray:
    return np.moveaxis(data.intensities, 0, -1)


def microscope(data: Dataset) -> dict[str, float]:
    optics = data.optics
    return {"lambda": optics.wavelength_um, "mag": optics.magnification, "dpix_c": optics.camera_pixel_um}


# ---------------------------------------------------------------- APIC, FPM_software


def apic(data: Dataset, first: float = 0.0) -> dict[str, Any]:
    """Spectrum pixels [led, (x, y)] with the authors' sign, ``first`` added."""
    radius = data.optics.cutoff * data.image_shape[0] * data.optics.pixel_um
    return {
        "I_low": pages_last(data),
        "freqXY_calib": -data.na / data.optics.na * radius + first,
        "na_rp_cal": radius,
        "na_cal": data.optics.na,
        **microscope(data),
    }


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
@pytest.mark.parametrize(("first", "says"), [(0.0, "relative to the axis"), (13.0, "counted from 1")])
@pytest.mark.parametrize("inside", [False, True])
def test_apic_without_na(
    version: str, first: float, says: str, inside: bool, square: Dataset, request: pytest.FixtureRequest
) -> None:
    variables = apic(square, first)
    path = request.getfixturevalue(version)("a.mat", {"saved_data": variables} if inside else variables)
    found = load(path)
    same(found, square)
    assert says in found.provenance["layout"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"freqXY_calib": np.zeros((3, 2))}, "20 images but 3 pairs in freqXY_calib"),
        ({"freqXY_calib": np.zeros((20, 3))}, r"freqXY_calib must be \[led, \(x, y\)\]"),
        ({"na_rp_cal": 0.0}, "na_rp_cal must be a positive number of pixels"),
        ({"na_rp_cal": None}, "has no variable na_rp_cal"),
        ({"I_low": np.ones((20, 24, 20))}, "square image's spectrum, and these images are 20 × 24"),
    ],
)
def test_apic_mistakes(change: dict[str, Any], says: str, square: Dataset, write_v5: Write) -> None:
    variables = {name: value for name, value in (apic(square) | change).items() if value is not None}
    with pytest.raises(DataError, match=says) as caught:
        load(write_v5("a.mat", variables))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_fpm_software(version: str, oblong: Dataset, request: pytest.FixtureRequest) -> None:
    variables = {"imlow": pages_last(oblong), "NA_list": -oblong.na, "NA": oblong.optics.na, **microscope(oblong)}
    same(load(request.getfixturevalue(version)("a.mat", variables)), oblong)


def test_fpm_software_asks_for_what_it_lacks(oblong: Dataset, write_v5: Write) -> None:
    with pytest.raises(DataError, match="not in the file: wavelength_um, na, LED positions"):
        load(write_v5("a.mat", {"imlow": pages_last(oblong), "mag": 10.0, "dpix_c": 3.45}))


def test_known_names_in_hdf5_that_is_not_matlabs(oblong: Dataset, tmp_path: Path) -> None:
    """The LEDs' number tells which axis counts the images."""
    some = oblong.select(range(18))
    for images in (some.intensities, pages_last(some)):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["I_low"], file["na_calib"], file["na_cal"] = images, -some.na, oblong.optics.na
            for name, value in microscope(oblong).items():
                file[name] = value
        same(load(tmp_path / "a.h5"), some)


# ---------------------------------------------------------------- PtyLab


def positions_m(data: Dataset, height_m: float) -> np.ndarray:
    """LED positions [led, (y, x)] in metres."""
    return height_m * data.na[:, ::-1] / np.sqrt(1 - np.square(data.na).sum(axis=1, keepdims=True))


def flat(file: h5py.File, data: Dataset) -> None:
    file["ptychogram"] = data.intensities
    file["encoder"] = positions_m(data, 0.074)
    file["zled"] = 0.074
    file["wavelength"] = data.optics.wavelength_um * 1e-6
    file["dxd"] = data.optics.camera_pixel_um * 1e-6
    file["magnification"] = [[data.optics.magnification]]
    file["NA"] = data.optics.na


def sectioned(file: h5py.File, data: Dataset, name: str = "section0") -> None:
    pixel_m = data.optics.pixel_um * 1e-6
    window, spectrum = data.image_shape[0], 3 * data.image_shape[0]
    step = data.optics.wavelength_um * 1e-6 / (window * pixel_m)
    group = file.create_group(name)
    group["ptychogram"] = data.intensities
    group["positions_led"] = positions_m(data, 0.074)
    group["positions"] = np.round(-data.na[:, ::-1] / step).astype(int) + spectrum // 2 - window // 2
    for key, value in {
        "wavelength": data.optics.wavelength_um * 1e-6, "zo": 0.074, "dxd": data.optics.camera_pixel_um * 1e-6,
        "dxp": pixel_m, "num_apert": data.optics.na, "Nd": window, "No": spectrum,
    }.items():  # fmt: skip
        if key not in file:
            file[key] = value


def test_ptylab_flat(oblong: Dataset, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        flat(file, oblong)
    same(load(tmp_path / "a.hdf5"), oblong)
    with pytest.raises(OptionError, match="leave out the key"):
        load(tmp_path / "a.hdf5", key="section0")


def test_ptylab_sections(square: Dataset, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        sectioned(file, square)
    found = load(tmp_path / "a.hdf5")
    same(found, square)
    assert found.name == "a section0"
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        sectioned(file, square.with_images(2 * square.intensities), "section1")
    with pytest.raises(OptionError, match="has 2 sections; choose one with key: section0, section1"):
        load(tmp_path / "a.hdf5")
    with pytest.raises(OptionError, match="known: section0, section1"):
        load(tmp_path / "a.hdf5", key="left")
    np.testing.assert_allclose(load(tmp_path / "a.hdf5", key="section1").intensities, 2 * square.intensities)


@pytest.mark.parametrize("layout", [flat, sectioned])
def test_images_of_ptylab_stay_in_their_file(
    layout: Any, square: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        layout(file, square)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    lazy = load(tmp_path / "a.hdf5")
    same(lazy, square)
    assert isinstance(lazy.images.source.counts.source, ChunkedImages)
    part = load(tmp_path / "a.hdf5", roi=(3, 5, 12, 9))
    np.testing.assert_array_equal(part.intensities, lazy.intensities[:, 3:15, 5:14])


def test_ptylab_sections_with_windows_only(square: Dataset, tmp_path: Path) -> None:
    """Corners of the windows are whole samples of the spectrum: the LEDs are known to half of one."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        sectioned(file, square)
        del file["section0/positions_led"]
    step = square.optics.wavelength_um / (square.image_shape[0] * square.optics.pixel_um)
    same(load(tmp_path / "a.hdf5"), square, tolerance=0.501 * step)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:  # the middles, relative to the axis
        file["section0/positions"][...] -= 24
    same(load(tmp_path / "a.hdf5"), square, tolerance=0.501 * step)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["section0/positions"]
        file["section0/positions"] = np.zeros((3, 2))
    with pytest.raises(DataError, match="20 images but 3 pairs in section0/positions"):
        load(tmp_path / "a.hdf5")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("zled", 0.0, "zled must be a positive height in metres"),
        ("encoder", np.zeros((20, 3)), r"encoder must be \[led, \(y, x\)\]"),
        ("encoder", np.zeros((7, 2)), "20 images but 7 LED positions"),
        ("wavelength", 0.5226, "not a light wavelength in µm"),
        ("ptychogram", np.zeros((24, 24)), r"ptychogram must be \[led, y, x\]"),
        ("magnification", [1.0, 2.0], "magnification must be one number"),
    ],
)
def test_ptylab_mistakes(name: str, value: Any, says: str, oblong: Dataset, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        flat(file, oblong)
        del file[name]
        file[name] = value
    with pytest.raises(DataError, match=says) as caught:
        load(tmp_path / "a.hdf5")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- arrays under any name


def around(data: Dataset) -> dict[str, Any]:
    """What has to be given where the file holds images alone."""
    return {"optics": data.optics.to_dict(), "leds": data.na}


def write_array(kind: str, path: Path, images: np.ndarray, request: pytest.FixtureRequest, **more: np.ndarray) -> Path:
    variables = {"pictures": images, **more}
    if kind in ("write_v5", "write_v73"):
        file: Path = request.getfixturevalue(kind)("a.mat", variables)
        return file
    if kind == "npy":
        np.save(path / "a.npy", images)
    elif kind == "npz":
        np.savez_compressed(path / "a.npz", **variables)
    else:
        with h5py.File(path / "a.h5", "w") as h5:
            for name, values in variables.items():
                h5[f"scan/{name}"] = values
    return path / f"a.{kind}"


KINDS = ["write_v5", "write_v73", "npy", "npz", "h5"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [False, True])
def test_the_only_array_is_taken(
    kind: str, last: bool, oblong: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The LEDs' number tells which axis counts the images; 20 is also the images' height here."""
    images = pages_last(oblong) if last else oblong.intensities
    path = write_array(kind, tmp_path, images, request, na=oblong.na)
    if last == kind.startswith("write"):  # the usual order
        same(load(path, **around(oblong)), oblong)
    fewer = {**around(oblong), "leds": oblong.na[:18]}
    some = images[..., :18] if last else images[:18]
    path = write_array(kind, tmp_path, some, request)
    same(load(path, **fewer), oblong.select(range(18)))


@pytest.mark.parametrize("kind", ["write_v5", "write_v73", "npz", "h5"])
def test_one_of_several_arrays(kind: str, oblong: Dataset, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    images = pages_last(oblong) if kind.startswith("write") else oblong.intensities
    path = write_array(kind, tmp_path, images, request, other=3 * images)
    inside = "scan/" if kind == "h5" else ""
    with pytest.raises(OptionError, match="several arrays may be the images; choose one with key") as caught:
        load(path, **around(oblong))
    assert "pictures (" in str(caught.value)
    assert "other (" in str(caught.value)
    same(load(path, key=f"{inside}pictures", **around(oblong)), oblong)
    if kind == "npz":
        with pytest.raises(OptionError, match="did you mean 'pictures'"):
            load(path, key="picture", **around(oblong))


def test_square_images_tell_their_axis_themselves(square: Dataset, tmp_path: Path, write_v5: Write) -> None:
    np.save(tmp_path / "a.npy", pages_last(square))
    same(load(tmp_path / "a.npy", **around(square)), square)
    same(load(write_v5("a.mat", {"x": square.intensities}), **around(square)), square)


@pytest.mark.parametrize(
    ("format", "says"),
    [
        ("ptylab", "has no variable ptychogram"),
        ("fpm_software", "has no variable imlow"),
        ("fpm_inr", "has no variable I_low"),
        ("uconn", "has no variable imlow_HDR"),
        ("images", "not a readable image"),
        ("native", "not a safetensors file|damaged"),
    ],
)
def test_a_format_that_it_is_not(format: str, says: str, square: Dataset, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = square.intensities
    with pytest.raises(DataError, match=says) as caught:
        load(tmp_path / "a.h5", format=format, **around(square))
    assert "\n" not in str(caught.value)
    same(load(tmp_path / "a.h5", format="array", **around(square)), square)


def test_a_key_wins_over_a_known_layout(square: Dataset, write_v5: Write) -> None:
    path = write_v5("a.mat", {**apic(square), "cleaned": 2 * pages_last(square)})
    np.testing.assert_allclose(load(path, key="cleaned", **around(square)).intensities, 2 * square.intensities)
    same(load(path, key="I_low", **around(square)), square)


def test_amplitudes_are_squared(oblong: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.sqrt(oblong.intensities))
    found = load(tmp_path / "a.npy", amplitudes=True, **around(oblong))
    same(found, oblong)
    assert found.provenance["amplitudes"] == "squared on reading"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.ones((4, 4)), "too small"),
        (np.zeros(7), "must be images of three dimensions"),
        (np.zeros((3, 9, 9, 2)), "must be images of three dimensions"),
        (np.array([{"a": 1}], dtype=object), "Object arrays cannot be loaded"),
        (np.full((3, 9, 9), "x"), "in numbers, got <U1"),
    ],
)
def test_arrays_that_are_no_images(content: np.ndarray, says: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    optics = {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4}
    with pytest.raises(FpmError, match=says) as caught:
        load(tmp_path / "a.npy", optics=optics, leds=np.zeros((1 if content.ndim == 2 else 3, 2)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_truncated_numpy_files(kind: str, oblong: Dataset, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = write_array(kind, tmp_path, oblong.intensities, request)
    content = path.read_bytes()
    for size in (100, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"a\.np[yz]: ") as caught:
            load(path, **around(oblong))
        assert "\n" not in str(caught.value)


def npy_of(shape: tuple[int, ...]) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()


def test_arrays_that_declare_more_than_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_HARMLESS_BYTES", 1 << 20)

    (tmp_path / "a.npy").write_bytes(npy_of((10**6, 1000, 1000)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_of((10**6, 1000, 1000)))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_of((30, 100, 100)) + bytes(30 * 100 * 100 * 8))
    for name in ("a.npy", "a.npz", "b.npz"):
        with pytest.raises(DataError, match=r"refused: (a\.npy|x) declares"):
            load(tmp_path / name)
