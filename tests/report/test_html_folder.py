from __future__ import annotations

import json

import numpy as np
import pytest

from fpmtools import metrics
from fpmtools.errors import DataError
from fpmtools.report import html_folder
from fpmtools.report.rendering import Rendered


def change(folder, edit):
    path = folder / "results.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_entries_are_the_rows_with_their_runs(comparison_folder):
    evidence = html_folder.read(comparison_folder)
    good, noisy, bad = evidence.entries
    assert evidence.solvers == ["good", "noisy:step=2", "bad"]
    assert len(evidence.datasets) == 1
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
    evidence = html_folder.read(comparison_folder)
    (truth,) = evidence.truths.values()
    for entry in evidence.entries[:2]:
        shown = evidence.in_focus(entry)
        assert metrics.align(truth.field, shown.field) == pytest.approx(1, abs=1e-5)
    assert evidence.in_focus(evidence.entries[2]) is None


def test_ring_correlation_is_what_was_measured(comparison_folder):
    evidence = html_folder.read(comparison_folder)
    curves, limit = evidence.ring_correlations(evidence.datasets[0], "truth")
    good, noisy = (dict(curves[entry]) for entry in evidence.entries[:2])
    assert np.mean(list(good.values())[1:4]) > np.mean(list(noisy.values())[1:4]) > 0.9
    assert {value for _, value in limit} == {0.5}
    assert evidence.ring_correlations(evidence.datasets[0], "halves") == ({}, [])
    measured = {"frequency": [0.1, 0.2], "correlation": [1.0, 0.3], "threshold": [0.6, 0.5], "of": "halves"}
    change(comparison_folder, lambda document: document["runs"][0].update(ring_correlation=measured))
    evidence = html_folder.read(comparison_folder)
    curves, limit = evidence.ring_correlations(evidence.datasets[0], "halves")
    assert curves == {evidence.entries[0]: [(0.1, 1.0), (0.2, 0.3)]}
    assert limit == [(0.1, 0.6), (0.2, 0.5)]
    curves, _ = evidence.ring_correlations(evidence.datasets[0], "truth")
    assert list(curves) == [evidence.entries[1]]


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
    evidence = html_folder.read(comparison_folder)
    assert [(entry.data, entry.name, len(entry.records)) for entry in evidence.entries] == [
        ("a", "good (seed 0)", 1),
        ("a", "good (seed 1)", 1),
        ("b", "good (seed 0)", 1),
        ("b", "good (seed 1)", 1),
    ]
    assert [entry.over_time("loss")[0][0] for entry in evidence.entries] == [1, 2, 1, 2]


@pytest.mark.parametrize("place", ["../outside", "/", "runs/../../outside"])
def test_a_run_outside_the_folder_is_not_read(comparison_folder, place):
    outside = comparison_folder.parent / "outside"
    (comparison_folder / "runs" / "good").rename(outside)
    change(comparison_folder, lambda document: document["runs"][0].update(folder=place))
    assert html_folder.read(comparison_folder).entries[0].rendered == "no saved result"


def test_damaged_parts_are_reasons_and_not_errors(comparison_folder):
    path = comparison_folder / "runs" / "good" / "rendered.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    for truth in (comparison_folder / "truth").iterdir():
        truth.write_bytes(b"no")

    def edit(document):
        document["runs"][1].update(history="no", quality_over_time=[3, {"seconds": "x"}], ring_correlation=[1])

    change(comparison_folder, edit)
    evidence = html_folder.read(comparison_folder)
    assert "not a readable fpmtools file" in evidence.entries[0].rendered
    assert evidence.truths == {}
    noisy = evidence.entries[1]
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
    from dataclasses import replace

    assert html_folder.save_truth(comparison_folder, replace(dataset, truth=None)) is None
    assert html_folder.read(comparison_folder).truths == {}
