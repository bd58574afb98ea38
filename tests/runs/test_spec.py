"""RunSpecs: to JSON and back, mistakes in one line, the run's identity."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.runs.spec import DataSpec, Limits, Outputs, RunSpec

SPEC = RunSpec(
    DataSpec("a.mat", channel="g", roi=(1, 2, 30, 40), optics={"na": 0.2}),
    "ap",
    {"sweeps": 4},
    preset="paper",
    z_um=(-1.0, 0.5),
    calibration="nominal",
    loss="poisson",
    seed=7,
    device="cuda:1",
    dtype="complex128",
    upsample=2.5,
    critical_grid=False,
    margin=7,
    threads=2,
    limits=Limits(60.0, {"psnr": 30.0}),
    outputs=Outputs(False, ("psnr",), ("report",), True),
)


def test_to_json_and_back() -> None:
    for spec in (SPEC, RunSpec("sim:tilted", "inr")):  # type: ignore[arg-type]
        again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert again.digest == spec.digest
    assert SPEC.to_dict()["schema"] == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2; this fpmtools reads schema 1"),
        ({"schema": None}, "schema None"),
        ({"sed": 3}, "'sed': did you mean 'seed'?"),
        ({"data": {"source": "a", "rio": 1}}, "did you mean 'data.roi'"),
        ({"data": {}}, "needs data.source"),
        ({"data": []}, "data must hold names with values, not list"),
        ({"data": {"source": "a", "roi": [1, 2]}}, "four whole numbers"),
        ({"solver": 3}, "solver 3 is not a name"),
        ({"options": {"a": [1]}}, "options"),
        ({"z_um": [1, 1]}, "ascending"),
        ({"z_um": [1e999]}, "finite"),
        ({"seed": -1}, "seed -1"),
        ({"calibrate": "none,pupil"}, "'none' stands alone"),
        ({"calibrate": "pupil,board,auto"}, "'auto' stands alone"),
        ({"calibrate": "pupil,boart"}, "did you mean 'board'"),
        ({"seed": True}, "seed True"),
        ({"seed": 10**5000}, "seed .int. is not"),
        ({"device": "tpu"}, "unknown device"),
        ({"dtype": "float16"}, "unknown dtype"),
        ({"loss": "l1"}, "unknown loss"),
        ({"threads": 0}, "threads 0"),
        ({"threads": 100_000}, "threads must be from 1 to"),
        ({"limits": {"budget_s": 0}}, "budget_s 0"),
        ({"limits": {"targets": {"psrn": 30}}}, "did you mean 'psnr'"),
        ({"limits": {"targets": {"ssim": 2}}}, "cannot be reached"),
        ({"outputs": {"pictures": ["all"]}}, "unknown pictures"),
        ({"outputs": {"track": 1}}, "track 1"),
    ],
)
def test_mistakes_are_one_short_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says.replace("?", r"\?")) as error:
        RunSpec.from_dict({"schema": 1, "data": "sim:tilted", "solver": "ap", **change})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"spec": 3}', "\xff"])
def test_files_that_hold_no_spec(text: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FpmError) as error:
        RunSpec.read(path)
    assert len(str(error.value)) < 300
    with pytest.raises(DataError, match="cannot be read"):
        RunSpec.read(tmp_path / "nothing.json")


def test_the_digest_is_of_what_decides_the_result() -> None:
    same = [
        replace(SPEC, outputs=Outputs()),
        replace(SPEC, options={"sweeps": "4"}),
    ]
    assert {spec.digest for spec in same} == {SPEC.digest}
    other = [
        replace(SPEC, data=replace(SPEC.data, roi=None)),
        *(replace(SPEC, **{name: value}) for name, value in {"solver": "inr", "seed": 8, "threads": 3}.items()),
        replace(SPEC, limits=Limits(61.0, {"psnr": 30.0})),
        replace(SPEC, options={"sweeps": 5}),
    ]
    assert len({spec.digest for spec in [SPEC, *other]}) == 1 + len(other)
    known = [replace(SPEC, data=DataSpec(source, digest="abc")) for source in ("here", "there")]
    assert known[0].digest == known[1].digest
    assert SPEC.differences(replace(SPEC, seed=8, data=replace(SPEC.data, roi=None))) == ["data.roi", "seed"]


def test_what_a_run_has_chosen_is_kept() -> None:
    open_ended = replace(SPEC, device="auto", threads=None)
    chosen = open_ended.resolved({"threads": 3, "device": "cpu", "digest": "abc"})
    assert (chosen.threads, chosen.device, chosen.data.digest) == (3, "cpu", "abc")
    assert SPEC.resolved({"threads": 3, "device": "cpu"}) == SPEC


def test_a_spec_is_read_without_torch() -> None:
    code = (
        "import sys; from fpmtools.runs.spec import RunSpec; from fpmtools.runs.folder import RunFolder\n"
        "RunSpec('sim:tilted', 'ap').digest; assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
