"""Shared fixtures: where the measured data sets are, and random test cases."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def measured_data() -> Callable[[str], Path]:
    """``measured_data("uconn_blood_smear")``: the folder of a measured data set; skips the test where it is absent."""

    def find(name: str) -> Path:
        for base in (os.environ.get("FPMTOOLS_DATA"), ROOT.parent / "shared" / "data"):
            if base and (Path(base) / name).is_dir():
                return Path(base) / name
        pytest.skip(f"measured data set {name} is absent (set FPMTOOLS_DATA to the folder that holds it)")

    return find
