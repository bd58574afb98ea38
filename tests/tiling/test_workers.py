"""Workers of their own: errors come back as they were raised, and one that dies is replaced."""

from __future__ import annotations

import os

import pytest

from fpmtools.errors import DataError, OptionError
from fpmtools.runs.folder import name_for
from fpmtools.runs.spec import read_json
from fpmtools.runs.worker import die_with
from fpmtools.tiling.workers import WorkerLost, Workers


def test_calls_errors_and_a_worker_that_is_killed() -> None:
    with Workers(1) as workers:
        with pytest.raises(DataError, match=r"nowhere\.json: cannot be read"):
            workers.submit(read_json, "nowhere.json").result(60)
        with pytest.raises(OptionError, match="fpmtools' own functions"):
            workers.submit(os.getcwd).result(60)
        with pytest.raises(WorkerLost, match="SIGKILL"):
            workers.submit(die_with, 0).result(60)  # it dies with whoever is not its parent: at once
        with pytest.raises(Exception, match="not JSON serializable"):
            workers.submit(name_for, "run", "data.tif").result(60)
        workers.stop()
        with pytest.raises(WorkerLost, match="nothing is begun any more"):
            workers.submit(read_json, "nowhere.json").result(60)
