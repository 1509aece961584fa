"""Processes of this machine: results as they come, errors that are told, and no wait for ever."""

import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
from joblib.externals.loky import process_executor

from ofa_deploy.accuracy import workers
from ofa_deploy.accuracy.predictors.evaluate import cross_validated, line, load_torch
from ofa_deploy.accuracy.workers import Workers
from ofa_deploy.errors import MeasureError
from ofa_deploy.spaces.encoding import FeatureLayout


def squared(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def failing(number: int) -> None:
    raise ValueError(f"no {number}")


def ending(number: int) -> None:
    os._exit(1)


def loaded(number: int) -> bool:
    return "torch" in sys.modules


def test_results_of_all_tasks_come_from_other_processes() -> None:
    results = list(Workers(2).run(squared, [(number,) for number in range(20)]))
    assert sorted(result for result, _ in results) == [number**2 for number in range(20)]
    assert os.getpid() not in {process for _, process in results}
    assert list(Workers(1).run(squared, [(3,)])) == [(9, os.getpid())]
    assert list(Workers(2).run(squared, [])) == []


def test_errors_of_tasks_are_told() -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(Workers(2).run(failing, [(0,)]))
    assert len(list(Workers(2).run(squared, [(1,), (2,)]))) == 2, "and others can follow"
    with pytest.raises(MeasureError, match="a worker was killed"):
        list(Workers(2).run(ending, [(0,), (1,)]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_wait_for_results_that_nobody_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the thread of loky dies: of a warning that is an error, or where no process can be started."""

    def die(*_: object) -> None:
        raise OSError("cannot allocate memory")

    monkeypatch.setattr(process_executor._ExecutorManagerThread, "process_result_item", die)
    monkeypatch.setattr(workers, "WATCH_SECONDS", 0.1)
    started = time.monotonic()
    before = set(multiprocessing.active_children())
    with pytest.raises(MeasureError, match="can no longer be reached"):
        list(Workers(2).run(squared, [(1,), (2,), (3,)]))
    assert time.monotonic() - started < 60
    assert set(multiprocessing.active_children()) <= before, "no process is left for which Python waits at its end"


def test_processes_that_fit_have_loaded_pytorch_before_their_first_task() -> None:
    """Else loading it later looks like a leak of memory, for which loky ends a process."""
    tasks = [(number,) for number in range(4)]
    assert not any(Workers(2).run(loaded, tasks))
    x, y = np.random.default_rng(0).random((40, 5)), np.arange(40.0)
    layout = FeatureLayout.of_sizes(0, 0, 0, 3, 2)
    predicted = cross_validated({"line": line(layout)}, x, y, np.ones(40), seed=0, jobs=2)
    assert np.isfinite(predicted["line"][0]).all(), "whatever processes did before"
    assert all(Workers(2).run(loaded, tasks, prepare=load_torch)), "the processes that have fitted"
