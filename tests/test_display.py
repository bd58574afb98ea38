"""How things show themselves: short as text, with pictures and escaped in a notebook; and bars while they are made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import fpmtools
from fpmtools.comparison import Comparison
from fpmtools.dataset import Dataset
from fpmtools.display import Listing, number, span
from fpmtools.errors import OptionError, OutputError
from fpmtools.progress import of_run, of_runs
from fpmtools.reconstruction import Grid, PlaneStack

EVIL = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return fpmtools.simulate("tilted", image_shape=(32, 48), tilt_um=2.0)


@pytest.fixture(scope="module")
def result(data: Dataset) -> fpmtools.Reconstruction:
    return fpmtools.reconstruct(data, "ap", z_um=[-2.0, 0.0, 2.0], options={"sweeps": 3})


@pytest.fixture(scope="module")
def compared(warm_workers, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    flat = fpmtools.simulate("thin", image_shape=(16, 24))
    out = tmp_path_factory.mktemp("compared") / "out"
    return fpmtools.compare(
        flat, ["ap:sweeps=2", "adam:sweeps=2"], calibrate="none", track=False, held_out=False, out=out, pictures=False
    )


def test_text_is_short_and_says_the_sizes(data, result, compared, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    for thing, words in (
        (data, ["'sim:tilted'", "68 of 32 × 48 pixels", "NA 0.256", "−2 … 2 µm", "truth"]),
        (data.truth, ["64 × 96", "−2 … 2 µm"]),
        (data.images, ["68 of 32 × 48", "float32"]),
        (data.calibration, ["68", "ideal", "nothing"]),
        (result, ["64 × 96 pixels of 0.173 µm", "3 planes, −2 … 2 µm", "kB"]),
        (compared, ["2 solvers on sim:thin", "ap:sweeps=2", "adam:sweeps=2", "done", "PSNR (dB)"]),
        (fpmtools.inspect(data), ["Inspection of 'sim:tilted'", "noise"]),
    ):
        text = repr(thing)
        assert all(word in text for word in words), text
        assert len(text.splitlines()) < 20
        assert max(map(len, text.splitlines())) <= 110


def test_nothing_from_data_steers_a_terminal_or_a_page(data, compared):
    from dataclasses import replace

    evil = replace(data, name=EVIL)
    assert "\x1b" not in repr(evil)
    rows = [{**row, "status": EVIL} for row in compared.rows]
    listing = Listing({EVIL: {"doc": EVIL}}, EVIL, EVIL)
    for thing in (evil, replace(compared, rows=rows), listing):
        assert "\x1b" not in repr(thing)
        page = thing._repr_html_()
        assert "<script>" not in page
        assert "&lt;script&gt;" in page


def test_pages_have_pictures_and_nothing_to_load(data, result, compared):
    for thing, pictures in ((data, 1), (result, 2), (compared, 2), (data.calibration, 0), (fpmtools.inspect(data), 1)):
        page = thing._repr_html_()
        assert page.count('src="data:image/') == page.count("<img") == pictures
        assert "http" not in page.replace("http://www.w3.org", "")
        assert len(page) < 1_000_000
    assert data._repr_html_().count("<circle") == 68 + 1  # the LEDs and the pupil
    # Each name of a result, with its numbers.
    assert all(row["solver"] in compared._repr_html_() for row in compared.rows)


def test_a_result_that_is_gone_is_named_where_its_picture_would_be(compared, tmp_path):
    from dataclasses import replace

    class Gone(dict):
        def __getitem__(self, title):
            return fpmtools.open_result(tmp_path / "nothing")

    page = replace(compared, reconstructions=Gone({"ap:sweeps=2": None}))._repr_html_()
    assert "<img" not in page
    assert "ap:sweeps=2: " in page


def test_a_calibrated_pupil_is_drawn(data):
    from dataclasses import replace

    known = replace(data.calibration, pupil=fpmtools.Pupil(np.array([0, 0, 0, 0, 0.5])), gain=np.linspace(0.9, 1.1, 68))
    assert "0.5 rad rms in 5 Zernike modes" in repr(known)
    assert "gains ± 5.8" in repr(known)
    assert known._repr_html_().count("<img") == 1


def test_listings_are_dicts_that_print_as_tables():
    found = fpmtools.options("ap")
    assert found["sweeps"]["type"] == "int"
    assert {"option", "type", "default", "doc"} <= set(repr(found).splitlines()[0].split())
    assert "presets: paper" in repr(found)
    changed = fpmtools.options("ap", preset="paper")
    assert {name for name in found if found[name]["default"] != changed[name]["default"]}
    assert {"ap", "inr", "adam"} <= set(fpmtools.solvers())
    with pytest.raises(OptionError, match="unknown preset 'papers': did you mean 'paper'"):
        fpmtools.options("ap", preset="papers")


def test_only_public_names_are_listed():
    assert dir(fpmtools) == sorted(fpmtools.__all__)
    assert {"evaluate", "inspect", "calibrate", "solvers", "options"} <= set(dir(fpmtools))
    code = "import fpmtools.engine, fpmtools.cli.calibrate, fpmtools.options; import fpmtools as f; " + (
        "assert callable(f.calibrate) and callable(f.options) and callable(f.inspect)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_numbers_have_a_true_minus():
    assert (number(-1.23456), span(3, 3), span(-1, 2.5)) == ("−1.235", "3 µm", "−1 … 2.5 µm")


# amplitude, phase, plot


def test_amplitude_and_phase_are_those_of_the_field(result):
    field = result.field(0.5)
    assert np.array_equal(result.amplitude(0.5), np.abs(field))
    turn = field * np.exp(-1j * result.phase(0.5))
    assert np.allclose(np.angle(turn * np.conj(turn[0, 0])), 0, atol=1e-5), "but for one global phase"
    assert abs(np.angle((np.abs(field) * np.exp(1j * result.phase(0.5))).sum())) < 1e-5
    assert result.phase(0.5).dtype == result.amplitude().dtype == np.float32
    assert result.amplitude(0.0, (10, 20)).shape == (10, 20)


def test_a_single_plane_need_not_be_named():
    plane = PlaneStack(np.ones((1, 8, 12), np.complex64), (-55.0,), Grid((8, 12), (8.0, 12.0), (-55.0, -55.0)))
    assert plane.field().shape == plane.phase().shape == (8, 12)
    two = PlaneStack(np.ones((2, 8, 12), np.complex64), (5.0, 9.0), Grid((8, 12), (8.0, 12.0), (5.0, 9.0)))
    with pytest.raises(OptionError, match="z = 0 µm is outside"):
        two.amplitude()
    with pytest.raises(OptionError, match="z_um must be a number of µm, got the text '5'"):
        two.phase("5")


def test_unwrapping_finds_a_phase_of_many_turns():
    rng = np.random.default_rng(0)
    truth = 60 * gaussian_filter(rng.normal(size=(60, 90)), 12)
    truth *= 9 / np.abs(truth).max()
    stack = PlaneStack(np.exp(1j * truth).astype(np.complex64)[None], (0.0,), Grid((60, 90), (60.0, 90.0), (0.0, 0.0)))
    assert np.ptp(stack.phase()) < 2 * np.pi
    found = stack.phase(unwrap=True)
    assert np.ptp(found) == pytest.approx(np.ptp(truth), rel=1e-5)
    assert np.ptp(found - truth) < 1e-4, "but for a constant"
    assert abs(np.median(found)) <= np.pi
    assert np.array_equal(found, stack.phase(unwrap=True))


def test_plot_draws_both_in_micrometres(result, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = result.plot(0.0)
    assert [one.get_title() for one in axes] == ["amplitude", "phase (rad)"]
    assert np.array_equal(axes[0].images[0].get_array(), result.amplitude(0.0))
    assert axes[0].images[0].get_extent() == [0, result.grid.extent_um[1], result.grid.extent_um[0], 0]
    axes[0].figure.savefig(tmp_path / "plot.png")
    mine = pyplot.subplots(2, 1)[1]
    assert result.plot(0.0, unwrap=True, axes=mine) == list(mine)
    assert np.array_equal(mine[1].images[0].get_array(), result.phase(0.0, unwrap=True))
    with pytest.raises(OptionError, match="axes must be two"):
        result.plot(0.0, axes=[mine[0]])
    pyplot.close("all")


def test_as_an_xarray_it_has_coordinates_in_micrometres(result):
    xarray = pytest.importorskip("xarray")
    array = result.to_xarray()
    assert isinstance(array, xarray.DataArray)
    assert (array.dims, array.dtype) == (("z", "y", "x"), np.complex64)
    assert array.z.values.tolist() == [-2, 0, 2]
    assert array.x.attrs["units"] == "µm"
    assert np.array_equal(array.sel(z=2.0).values, result.field(2.0))
    assert array.x.values[-1] == pytest.approx(result.grid.extent_um[1] - result.grid.pixel_um[1])
    assert result.to_xarray(0.5).shape == (1, 64, 96)
    with pytest.raises(OptionError, match="outside the reconstructed range"):
        result.to_xarray([0, 7])


def test_files_for_other_programs_by_their_kind(result, tmp_path):
    import tifffile
    import zarr

    assert result.to_tiff(tmp_path / "a.ome.tiff", channels=["phase"], z_um=[-2.0, 2.0]) == []
    assert tifffile.imread(tmp_path / "a.ome.tiff").shape == (2, 64, 96)
    result.to_tiff(str(tmp_path / "a.TIF"), 0.5)
    with tifffile.TiffFile(tmp_path / "a.TIF") as file:
        assert file.is_imagej
    result.to_zarr(tmp_path / "a.zarr", 0.5)
    assert zarr.open_array(tmp_path / "a.zarr" / "0", mode="r").shape == (2, 1, 64, 96)
    result.to_zarr(tmp_path / "a.zarr", 0.5, format="ome-zarr-0.4", force=True)
    assert zarr.open_group(tmp_path / "a.zarr", mode="r").metadata.zarr_format == 2
    for make, name, says in (
        (result.to_tiff, "a.npy", "ends in .tiff or .tif"),
        (result.to_zarr, "a.ome.tiff", "ends in .zarr"),
        (result.to_tiff, 3, "to_tiff: path must be a path"),
    ):
        with pytest.raises(OptionError, match=says):
            make(name)
    with pytest.raises(OutputError, match="exists"):
        result.to_zarr(tmp_path / "a.zarr", 0.5)


# bars

SCRIPT = """
import fpmtools
data = fpmtools.simulate("thin", image_shape=(16, 24))
fpmtools.reconstruct(data, "ap", options={"sweeps": 3}, progress=False)
how = {"calibrate": "none", "track": False, "warm_up": False, "held_out": False}
fpmtools.compare(data, ["ap:sweeps=2"], progress=False, **how)
print("now", flush=True)
fpmtools.reconstruct(data, "ap", options={"sweeps": 3})
fpmtools.compare(data, ["ap:sweeps=2"], **how)
"""


def in_terminal(code: str) -> str:
    """What a process says on a terminal."""
    import os
    import pty

    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        said = b""
        while True:
            try:
                said += (some := os.read(parent, 4096))
            except OSError:  # how Linux says that the other side has gone
                break
            if not some:
                break
        assert process.wait(timeout=120) == 0, said
    os.close(parent)
    return said.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_bar_unless_it_is_turned_off():
    quiet, now, said = in_terminal(SCRIPT).partition("now")
    assert (quiet, now) == ("", "now")
    assert "sim:thin" in said
    assert "loss" in said
    assert "run 1 of 1: ap:sweeps=2" in said


def test_what_runs_say_is_told_as_steps():
    one, several = [], []
    progress = {"event": "progress", "step": 2, "total": 7, "loss": 0.5, "remaining_s": 1.0}
    for event in (progress, {"event": "calibrating", "step": 1, "total": 60}, {"event": "log", "text": "a"}):
        of_run(one.append)(event)
        of_runs(several.append)("ap\x1b", {**event, "number": 2, "count": 6, "all_remaining_s": 90.0})
    assert [(event["step"], event["total"], event.get("doing")) for event in one] == [
        (2, 7, None), (1, 60, "calibrating")
    ]  # fmt: skip
    assert [(event["doing"], event["remaining_s"]) for event in several[:1]] == [("run 2 of 6: ap\\x1b", 90.0)]
    assert several[1]["doing"] == "calibrating ap\\x1b"


def test_elsewhere_nothing_is_printed(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    fpmtools.reconstruct(fpmtools.simulate("thin", image_shape=(16, 24)), "ap", options={"sweeps": 2})
    assert capfd.readouterr() == ("", "")


NOTEBOOK = """
import fpmtools
from fpmtools.progress import bar
data = fpmtools.simulate("thin", image_shape=(16, 24))
with bar("a <b>") as show:
    show({"step": 1, "total": 4, "loss": 0.5, "remaining_s": 3.0})
    show({"step": 4, "total": 4, "at_most": True, "loss": 0.25})
    show({"step": 2, "total": 7, "doing": "calibrating"})
with bar("quiet", False) as show:
    show({"step": 1, "total": 4})
result = fpmtools.reconstruct(data, "ap", options={"sweeps": 3})
result
"""


def in_kernel(code: str) -> list[tuple[str, dict[str, str]]]:
    """What a notebook's kernel sends to be shown: the kind of each message, and its forms by their type."""
    manager = pytest.importorskip("jupyter_client.manager", reason="needs ipykernel")
    pytest.importorskip("ipykernel")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        shown: list[tuple[str, dict[str, str]]] = []
        client.execute_interactive(
            code,
            timeout=120,
            output_hook=lambda m: shown.append((m["msg_type"], m["content"].get("data", m["content"]))),
        )
        return shown
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def test_a_notebook_shows_an_element_that_is_rewritten():
    shown = [(kind, data) for kind, data in in_kernel(NOTEBOOK) if kind not in ("status", "execute_input")]
    (first, one), (second, two), (third, three), *rest = shown
    assert (first, second, third) == ("display_data", "update_display_data", "update_display_data")
    pages = [data["text/html"] for data in (one, two, three)]
    assert all("a &lt;b&gt;" in page for page in pages)
    assert 'value="1" max="4"' in pages[0]
    assert "3 s left" in pages[0]
    assert "value=" not in pages[1]
    assert "4 of at most 4" in pages[1]
    assert "calibrating 2/7" in pages[2]
    *bars, (kind, result) = rest
    assert {kind for kind, _ in bars} <= {"display_data", "update_display_data"}
    assert all("sim:thin" in data["text/html"] for _, data in bars)
    assert kind == "execute_result"
    assert "<img" in result["text/html"]
    assert result["text/plain"].startswith("Reconstruction (low-rank)")


def test_calibrate_and_evaluate_take_threads_and_say_their_steps(data, result):
    steps: list[tuple[int, int]] = []
    noisy = fpmtools.simulate("thin", image_shape=(48, 48), leds="grid", upsample=3, aberration_rad=0.7, photons=500)
    found = fpmtools.calibrate(noisy, "pupil", threads=1, on_step=lambda *step: steps.append(step))
    assert steps
    assert "pupil" in repr(found).splitlines()[-1]
    assert fpmtools.evaluate(result, data, ["residual"], threads=1) == fpmtools.evaluate(result, data, ["residual"])


# wrong kinds


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda d, r: fpmtools.reconstruct("file.mat"),
            r"got the text 'file.mat'; fpmtools.load\('file.mat'\)",
        ),
        (lambda d, r: fpmtools.reconstruct(Path("a")), r"must be a Dataset, got a PosixPath; fpmtools.load"),
        (lambda d, r: fpmtools.reconstruct(d, 3), "solver must be the name of a solver, or a Solver, got 3"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", options="sweeps=3"), "options must be names with values"),
        (
            lambda d, r: fpmtools.evaluate(d, r),
            "a Reconstruction, got a Dataset; the reconstruction comes first",
        ),
        (lambda d, r: fpmtools.evaluate(r, "x"), "second argument must be a Dataset"),
        (lambda d, r: fpmtools.simulate(image_shape="64"), "image_shape must be two whole numbers"),
        (lambda d, r: fpmtools.simulate(image_shape=64), r"image_shape must be two whole numbers \(y, x\).*got 64"),
        (lambda d, r: fpmtools.simulate(image_shape=(64, 2.5)), "image_shape must be two whole numbers.*got 2.5"),
        (lambda d, r: fpmtools.simulate(3), "sample must be one of tilted"),
        (lambda d, r: fpmtools.simulate(tilt_um="3"), "tilt_um must be a number, got the text '3'"),
        (lambda d, r: fpmtools.simulate(photons="many"), "photons must be a number, or None"),
        (lambda d, r: fpmtools.simulate(optics="10x"), "optics must be an Optics"),
        (lambda d, r: fpmtools.compare(d, "ap"), "solvers must be a list of names"),
        (lambda d, r: fpmtools.compare(5, ["ap"]), "data must be a Dataset, what fpmtools.load takes"),
        (lambda d, r: fpmtools.compare([d, 5], ["ap"]), "data must be a Dataset"),
        (lambda d, r: fpmtools.inspect("x"), "must be a Dataset, got the text 'x'"),
        (lambda d, r: fpmtools.calibrate(r), "must be a Dataset, got a LowRankStack"),
        (lambda d, r: fpmtools.calibrate(d, ["pupil"]), "calibrate must be auto, none, or names with commas"),
        (lambda d, r: fpmtools.run("sim:thin", "out"), "spec must be a RunSpec"),
        (lambda d, r: fpmtools.options(None), "solver must be the name of a solver, got None"),
        (lambda d, r: fpmtools.open_result(r), "path must be a path"),
        (lambda d, r: fpmtools.resume(3), "folder must be a path, got 3"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", z_um="three"), "z must be one or more finite values"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", seed="a"), "seed must be a whole number, got the text 'a'"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", budget_s="60s"), "budget must be a number of seconds"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", threads="2"), "threads must be a whole number"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", upsample="2"), "upsample must be a number"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", device=0), "device must be auto, cpu, cuda or cuda:N, got 0"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", calibration=5), "calibration must be auto, nominal, a file"),
        (lambda d, r: fpmtools.reconstruct(d, "ap", calibrate=["pupil"]), "calibrate must be auto, none, or names"),
        (lambda d, r: fpmtools.evaluate(r, d, "psnr"), "names must be a list of metrics, got the text 'psnr'"),
        (lambda d, r: fpmtools.evaluate(r, d, z_um="a"), "z must be one or more finite values"),
        (lambda d, r: fpmtools.compare(d, [3]), "a solver must be a name with options"),
        (lambda d, r: fpmtools.compare(d, ["ap"], repeats="2"), "repeats must be a whole number"),
        (lambda d, r: fpmtools.compare(d, ["ap"], seeds=3), "seeds must be whole numbers"),
        (lambda d, r: fpmtools.compare(d, ["ap"], targets="psnr=25"), "targets must be names with numbers"),
        (lambda d, r: fpmtools.simulate(leds=["a"]), "leds must be one of rings, grid, or numbers"),
        (lambda d, r: r.field(shape=5), "shape must be two whole numbers"),
        (lambda d, r: r.save(None), "path must be a path, got None"),
        (lambda d, r: d.crop("a", 0, 8, 8), "crop: y, x, height and width must be whole numbers"),
        (lambda d, r: d.select("a"), "indices must be whole numbers"),
        (lambda d, r: Dataset.from_arrays(d.images, "abc", d.optics), "LED positions must be numbers"),
        (lambda d, r: Dataset.from_arrays(d.images, d.na, "10x"), "optics must be an Optics"),
        (lambda d, r: Dataset.from_arrays(d.images, d.na, {"na": 0.1}), "wavelength_um, magnification, .* missing"),
        (lambda d, r: Dataset.from_arrays(d.images, d.na, {"NA": 0.1}), "unknown optics value 'NA': did you mean 'na'"),
        (lambda d, r: fpmtools.Optics(wavelength_um="0.5", na=0.1, magnification=4, camera_pixel_um=4), "a number"),
    ],
)
def test_a_wrong_kind_is_told_in_one_line(data, result, call, says):
    with pytest.raises(fpmtools.FpmError, match=says) as error:
        call(data, result)
    assert "\n" not in str(error.value)
