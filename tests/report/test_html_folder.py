from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fpmtools import known, metrics
from fpmtools.errors import DataError
from fpmtools.report import html_folder
from fpmtools.report.rendering import Rendered


def change(folder, edit):
    path = folder / "results.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_rows_are_the_rows_with_their_runs(comparison_folder):
    found = html_folder.read(comparison_folder)
    good, noisy, bad = found.rows
    assert found.solvers == ["good", "noisy:step=2", "bad"]
    assert len(found.datasets) == 1
    assert isinstance(good.rendered, Rendered)
    assert isinstance(noisy.rendered, Rendered)
    assert bad.rendered == "killed by SIGSEGV"
    assert good.over_time("psnr") == [(pytest.approx(0.2), 11), (pytest.approx(0.4), 12), (pytest.approx(0.6), 13)]
    assert good.over_time("ssim") == []
    assert good.over_time("loss")[0] == (0.1, 1)
    assert bad.over_time("loss") == []


def test_truth_comes_back_limited_to_the_band(comparison_folder, dataset):
    (truth,) = html_folder.read(comparison_folder).truths.values()
    pixel_um = dataset.optics.pixel_um / 2
    limited = metrics.band_limit(dataset.truth.field, dataset.optics, dataset.na, pixel_um)
    assert abs(np.vdot(limited, truth.field)) == pytest.approx(np.linalg.norm(limited) * np.linalg.norm(truth.field))
    assert np.angle(truth.field.sum()) == pytest.approx(0, abs=1e-5)
    np.testing.assert_array_equal(truth.depth_um, dataset.truth.depth_um)


def test_in_focus_is_aligned_to_the_truth(comparison_folder):
    found = html_folder.read(comparison_folder)
    (truth,) = found.truths.values()
    for row in found.rows[:2]:
        shown = found.in_focus(row)
        assert metrics.align(truth.field, shown.field) == pytest.approx(1, abs=1e-5)
    assert found.in_focus(found.rows[2]) is None


def test_ring_correlation_is_what_was_measured(comparison_folder):
    found = html_folder.read(comparison_folder)
    curves, limit = found.ring_correlations(found.datasets[0], "truth")
    good, noisy = (dict(curves[row]) for row in found.rows[:2])
    assert np.mean(list(good.values())[1:4]) > np.mean(list(noisy.values())[1:4]) > 0.9
    assert {value for _, value in limit} == {0.5}
    assert found.ring_correlations(found.datasets[0], "halves") == ({}, [])
    measured = {"frequency": [0.1, 0.2], "correlation": [1.0, 0.3], "threshold": [0.6, 0.5], "of": "halves"}
    change(comparison_folder, lambda document: document["runs"][0].update(ring_correlation=measured))
    found = html_folder.read(comparison_folder)
    curves, limit = found.ring_correlations(found.datasets[0], "halves")
    assert curves == {found.rows[0]: [(0.1, 1.0), (0.2, 0.3)]}
    assert limit == [(0.1, 0.6), (0.2, 0.5)]
    curves, _ = found.ring_correlations(found.datasets[0], "truth")
    assert list(curves) == [found.rows[1]]


def test_rows_keep_to_their_own_data_set_and_seed(comparison_folder):
    def edit(document):
        (run, *_), (row, *_) = document["runs"], document["rows"]
        document["rows"] = [{**row, "data": data, "seed": seed} for data in ("a", "b") for seed in (0, 1)]
        document["runs"] = [
            {**run, "data": {"name": data}, "seed": seed, "history": [[1, seed + 1.0, 1.0]]}
            for data in ("a", "b")
            for seed in (0, 1)
        ]

    change(comparison_folder, edit)
    found = html_folder.read(comparison_folder)
    assert [(row.data, row.name, len(row.records)) for row in found.rows] == [
        ("a", "good (seed 0)", 1),
        ("a", "good (seed 1)", 1),
        ("b", "good (seed 0)", 1),
        ("b", "good (seed 1)", 1),
    ]
    assert [row.over_time("loss")[0][0] for row in found.rows] == [1, 2, 1, 2]


@pytest.mark.parametrize("place", ["../outside", "/", "runs/../../outside"])
def test_a_run_outside_the_folder_is_not_read(comparison_folder, place):
    outside = comparison_folder.parent / "outside"
    (comparison_folder / "runs" / "good").rename(outside)
    change(comparison_folder, lambda document: document["runs"][0].update(folder=place))
    assert html_folder.read(comparison_folder).rows[0].rendered == "no saved result"


def test_damaged_parts_are_reasons_and_not_errors(comparison_folder):
    path = comparison_folder / "runs" / "good" / "rendered.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    for path in (comparison_folder / "truth").iterdir():
        path.write_bytes(b"no")

    def edit(document):
        document["runs"][1].update(history="no", quality_over_time=[3, {"seconds": "x"}], ring_correlation=[1])

    change(comparison_folder, edit)
    found = html_folder.read(comparison_folder)
    assert "not a readable fpmtools file" in found.rows[0].rendered
    assert found.truths == {}
    noisy = found.rows[1]
    assert noisy.over_time("loss") == noisy.over_time("psnr") == []
    assert noisy.ring_correlation() == ([], [], "")


@pytest.mark.parametrize("text", [None, "", "[]", '{"rows": []}', '{"rows": 3}', '{"rows": ["x"]}'])
def test_a_folder_without_a_comparison_is_one_clear_line(tmp_path, text):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError) as caught:
        html_folder.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_truth_that_is_gone_does_not_stay(comparison_folder, dataset):
    (path,) = (comparison_folder / "truth").iterdir()
    assert known.save(replace(dataset, truth=None), path) is None
    assert html_folder.read(comparison_folder).truths == {}


def test_columns_are_what_the_comparison_says_of_them(comparison_folder):
    said = {"label": "haze", "unit": "µm", "better": "lower", "summary": "s", "rank": 3}
    change(comparison_folder, lambda document: document["columns"].update(stray_um=said, odd=3))
    found = html_folder.read(comparison_folder)
    assert (found.column("stray_um").title, found.column("stray_um").main) == ("haze (µm)", True)
    assert (found.column("frc_um").title, found.column("odd").title) == ("frc (µm)", "odd")
