"""The promises that every solver makes, tested on this one."""

from fpmtools.testing import SolverConformance


class TestWirtinger(SolverConformance):
    solver = "wirtinger"
    options = {"iterations": 20}  # noqa: RUF012
