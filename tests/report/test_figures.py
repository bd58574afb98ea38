from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fpmtools.formats.channels import flat_phase
from fpmtools.report import contrast, figures
from fpmtools.report.figures import Picture

SHAPES = [(48, 65), (90, 17), (13, 200), (31, 30)]
LONG = "laboratory-of-somebody-adaptive-solver:preset=paper:learning_rate=0.001:seed="


def pictures(figure: Figure):
    return [axes for axes in figure.axes if axes.images]


def assert_tidy(figure: Figure, extent_um: tuple[float, float]) -> None:
    """All texts on the page, headings apart from each other, and every picture true to scale."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = figure.bbox
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    for axes in figure.axes:
        boxes += [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text() and axes.axison]
    for box in boxes:
        assert box.x0 >= page.x0
        assert box.x1 <= page.x1
        assert box.y0 >= page.y0
        assert box.y1 <= page.y1
    headings = [text.get_window_extent() for text in figure.texts]
    for i, one in enumerate(headings):
        for other in headings[:i]:
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            down = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert across < 1 or down < 4, "texts overlap"
    for axes in pictures(figure):
        assert axes.bbox.height / axes.bbox.width == pytest.approx(extent_um[0] / extent_um[1], rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_field_figures_are_tidy_and_write_png(cells, shape, tmp_path):
    field, extent = cells(*shape), (shape[0] * 0.2, shape[1] * 0.2)
    for draw, panels in ((figures.amplitude, 1), (figures.phase, 1), (figures.amplitude_phase, 2)):
        figure = draw(field, extent, title=f"red blood smear · {LONG}0 · z = −55 µm")
        assert len(pictures(figure)) == panels
        assert_tidy(figure, extent)
    path = figures.save(figure, tmp_path / "both.png")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        np.testing.assert_allclose(image.size, figure.get_size_inches() * figures.DPI, atol=1)


def test_amplitude_and_phase_show_the_right_numbers(cells):
    field = cells(40, 61)
    (left, right) = pictures(figures.amplitude_phase((field * np.exp(2j)).astype(np.complex64), (8.0, 12.2)))
    np.testing.assert_allclose(left.images[0].get_array(), np.abs(field), atol=1e-6)
    np.testing.assert_allclose(right.images[0].get_array(), flat_phase(field), atol=1e-5)
    scale = contrast.gray_scale([np.abs(field)])
    assert left.images[0].get_clim() == pytest.approx((scale.low, scale.high))
    assert left.images[0].get_extent() == [0, 12.2, 8.0, 0]  # first row on top, in µm


def test_scale_bar_has_the_length_it_says(cells):
    (axes,) = pictures(figures.amplitude(cells(40, 60), (20.0, 30.0)))
    (bar,) = axes.lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(5.0)
    assert [text.get_text() for text in axes.texts] == ["5 µm"]


def test_constant_field_does_not_warn():
    for value in (0, 2j):
        figures.png(figures.amplitude_phase(np.full((9, 14), value, np.complex64), (9, 14)))


@pytest.mark.parametrize("shape", SHAPES)
def test_side_by_side_with_eight_long_names_and_a_failure(cells, shape):
    extent = (shape[0] * 0.2, shape[1] * 0.2)
    reason = "diverged: the loss is nan after step 12 of 300; lower the step size, or choose another preset"
    columns = [Picture(f"{LONG}{i}", cells(*shape, seed=i), "31.24 dB · 14.2 s") for i in range(7)]
    columns.insert(3, Picture(f"{LONG}8", None, reason))
    truth = cells(*shape)
    figure = figures.side_by_side(columns, extent, truth=truth, title="tilted sample")
    assert len(pictures(figure)) == 7 * 3 + 2  # the truth has no error
    assert_tidy(figure, extent)
    names = " ".join(text.get_text() for text in figure.texts)
    assert "no picture" in names
    assert all(f"={i}" in names for i in range(7))  # the ends that tell the names apart survive
    assert_tidy(figures.side_by_side(columns[:1], extent), extent)


def test_side_by_side_aligns_to_the_truth_and_resamples(cells):
    truth = cells(36, 50)
    columns = [
        Picture("exact", (truth * 0.5 * np.exp(2j)).astype(np.complex64)),
        Picture("other", cells(18, 25, seed=3)),
    ]
    figure = figures.side_by_side(columns, (3.6, 5.0), truth=truth)
    images = {(round(axes.get_position().x0, 3), row): axes.images[0] for row, axes in _rows(figure)}
    (_, first_column) = sorted(images)[0], min(x for x, _ in images)
    np.testing.assert_allclose(images[first_column, 0].get_array(), np.abs(truth), atol=1e-5)
    np.testing.assert_allclose(images[first_column, 2].get_array(), 0, atol=1e-5)
    assert {image.get_array().shape for image in images.values()} == {(36, 50)}
    assert len({image.get_clim() for (_, row), image in images.items() if row == 0}) == 1


def _rows(figure: Figure):
    heights = sorted({round(axes.get_position().y0, 3) for axes in pictures(figure)}, reverse=True)
    return [(heights.index(round(axes.get_position().y0, 3)), axes) for axes in pictures(figure)]


def test_no_truth_and_nothing_but_failures():
    figure = figures.side_by_side([Picture("a", None, "failed"), Picture("b", None, "failed too")], (4.0, 6.0))
    assert not pictures(figure)
    assert_tidy(figure, (4.0, 6.0))


def test_evaluation_shows_three_panels_and_four_metrics(cells):
    observed, predicted = np.abs(cells(33, 47)), np.abs(cells(33, 47, seed=1))
    quality = {"PSNR": "23.46 dB", "SSIM": "0.8123", "RMSE": "0.0512", "relative L2": "0.00321"}
    figure = figures.evaluation(observed, predicted, quality)
    panels = pictures(figure)
    np.testing.assert_allclose(panels[2].images[0].get_array(), np.abs(observed - predicted))
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim()
    assert not any(axes.lines for axes in panels)  # no extent, no scale bar
    title = figure.texts[0].get_text()
    for label, value in quality.items():
        assert f"{label} {value}" in title
    assert_tidy(figure, (33, 47))


@pytest.mark.parametrize(
    ("history", "scale"),
    [
        ([(k, 0.1 * k, float(np.exp(-k / 9))) for k in range(1, 60)], "log"),
        ([(10, 1.0, 0.0156), (20, 2.0, 0.0150)], "linear"),
        ([(1, 0.5, 0.0)], "linear"),
        ([(1, 0.5, -3.0), (2, 1.0, float("nan")), (3, 2.0, 4.0)], "linear"),
        ([], "linear"),
    ],
)
def test_loss_curve(history, scale):
    figure = figures.loss_curve(history, title="red blood smear · inr")
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    with Image.open(io.BytesIO(figures.png(figure))) as image:
        image.load()
    assert axes.yaxis.label.get_window_extent().x0 >= 0
    assert figure.get_suptitle().startswith("red blood smear · inr: ")
    if not history:
        assert figure.get_suptitle().endswith("no loss was reported")


def test_pyplot_is_never_imported():
    code = (
        "import sys, numpy as np; from fpmtools.report import figures, video; "
        "figures.png(figures.amplitude(np.ones((8, 11), complex), (8, 11))); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_keeps_its_spaces_and_breaks_after_signs():
    assert figures._name_lines("ap, as given", 20) == ["ap, as given"]
    assert figures._name_lines("ap:sweeps=2:step=0.5", 12) == ["ap:", "sweeps=2:", "step=0.5"]
