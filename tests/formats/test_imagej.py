from __future__ import annotations

import numpy as np
import pytest
import tifffile

from fpmtools.errors import OutputError
from fpmtools.formats import channels, imagej
from fpmtools.formats.volume import even_spacing

Z = (-4.0, -1.0, 2.0, 5.0)


def test_stack_reads_back_calibrated(cells, tmp_path):
    fields = [cells(30, 43, seed=k) * np.complex64(np.exp(1j * k)) for k in range(4)]
    written = imagej.write_amplitude_phase(tmp_path, iter(fields), (30, 43), Z, (0.25, 0.5))
    assert [path.name for path in written] == ["amplitude.tiff", "phase.tiff"]
    expected = ([np.abs(f) for f in fields], [channels.flat_phase(f) for f in fields])
    for path, values, word in zip(written, expected, ("amplitude", "phase in rad"), strict=True):
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej
            assert file.series[0].axes == "ZYX"
            assert file.asarray().dtype == np.float32
            np.testing.assert_array_equal(file.asarray(), np.array(values))
            about = file.imagej_metadata
            assert (about["unit"], about["spacing"], about["slices"]) == ("um", 3.0, 4)
            assert about["Labels"][0] == "z = -4 um"
            assert about["z_um"] == "-4 -1 2 5"
            assert word in about["content"]
            across, down = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
            assert across[0] / across[1] == pytest.approx(2)  # pixels per µm
            assert down[0] / down[1] == pytest.approx(4)
        for k in range(4):
            assert np.array_equal(imagej.Stack(path)[k], values[k])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["amplitude.tiff", "phase.tiff"]


@pytest.mark.parametrize("shape", [(12, 3), (9, 4), (8, 21)])
def test_single_plane_and_widths_that_look_like_colour(cells, tmp_path, shape):
    amplitude, _ = imagej.write_amplitude_phase(tmp_path, iter([cells(*shape)]), shape, (0.0,), (0.2, 0.2))
    np.testing.assert_array_equal(np.squeeze(tifffile.imread(amplitude)), np.abs(cells(*shape)))
    assert imagej.Stack(amplitude)[0].shape == shape


def test_stacks_too_large_for_classic_tiff_become_bigtiff(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(imagej, "_CLASSIC_TIFF_BYTES", 1000)
    pages = [np.abs(cells(20, 31, seed=k)) for k in range(4)]
    path = imagej.write_stack(tmp_path / "big.tiff", pages, (20, 31), Z, (0.2, 0.2), channels.AMPLITUDE)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert "amplitude" in file.pages[0].description
        np.testing.assert_array_equal(file.asarray(), np.array(pages))
    np.testing.assert_array_equal(imagej.Stack(path)[2], pages[2])


def test_missing_folder_is_an_output_error(cells, tmp_path):
    with pytest.raises(OutputError, match="cannot write in"):
        imagej.write_amplitude_phase(tmp_path / "absent", iter([cells(8, 9)]), (8, 9), (0.0,), (1, 1))


def test_planes_are_rendered_once_and_one_at_a_time(cells, tmp_path):
    alive = []

    def fields():
        for k in range(4):
            alive.append(k)
            yield cells(10, 14, seed=k)

    imagej.write_amplitude_phase(tmp_path, fields(), (10, 14), Z, (1, 1))
    assert alive == [0, 1, 2, 3]


def test_uneven_z_gets_a_mean_spacing(cells, tmp_path):
    """It gets none: every page says its own z, to nine digits in the description."""
    uneven = (-4.0, -1.0, 2.0, 5.5)
    pages = [np.abs(cells(20, 31, seed=k)) for k in range(4)]
    path = imagej.write_stack(tmp_path / "uneven.tiff", pages, (20, 31), uneven, (0.2, 0.2), channels.AMPLITUDE)
    with tifffile.TiffFile(path) as file:
        about = file.imagej_metadata
        assert "spacing" not in about
        assert about["z_um"] == "-4 -1 2 5.5"
        assert about["Labels"] == ["z = -4 um", "z = -1 um", "z = 2 um", "z = 5.5 um"]
    third = tuple(k / 3 for k in range(7))
    assert even_spacing(third) == pytest.approx(1 / 3)
    assert even_spacing((0.0, 1.0, 2.001)) is None
    assert even_spacing((0.0,)) is None
