"""Who does the measuring and fitting: processes of this machine (joblib's loky), or the workers of a cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.parallel import ParallelBackendBase, get_active_backend

from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.optional import needing

LOST = ("TerminatedWorkerError", "KilledWorker", "WorkerCrashedError")
"""Names of the errors that joblib's own processes, Dask and Ray raise when workers die."""
MANAGER = "ExecutorManagerThread"
"""Name of the thread that hands tasks to the processes of this machine, and their results back."""
IDLE_SECONDS = 300
"""Time without a task after which a process of this machine ends."""
WATCH_SECONDS = 2.0
"""Time between two checks that the thread named `MANAGER` still lives, while tasks are waited for."""


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        jobs: processes on this machine; a cluster uses all of its workers.
        backend: `loky`, which is this machine, or one of `CLUSTERS`.
        address: of the cluster's scheduler, such as `tcp://10.0.0.1:8786` for Dask, `ray://10.0.0.1:10001` or `auto`
            for Ray.

    Raises:
        OfaDeployError: there is no such backend, or this machine was given an address.
    """

    jobs: int = 1
    backend: str = "loky"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in ("loky", *CLUSTERS):
            raise OfaDeployError(f"unknown backend {self.backend!r}; choose one of loky, {', '.join(CLUSTERS)}")
        if self.backend == "loky" and self.address is not None:
            raise OfaDeployError("--address is that of a cluster; add --backend dask or --backend ray")

    def run(
        self,
        function: Callable[..., Any],
        tasks: Iterable[tuple[Any, ...]],
        *,
        prepare: Callable[[], None] | None = None,
    ) -> Iterator[Any]:
        """Results of `function` for each tuple of arguments, as they are ready (from Ray a few at a time).

        A task whose worker is lost is given to another one by the cluster.

        Args:
            function: what a worker runs.
            tasks: positional arguments of `function`, a tuple a task.
            prepare: what a process of this machine does before its first task, such as importing what is large.

        Raises:
            OfaDeployError: the cluster's package is not installed.
            MeasureError: the cluster does not answer or has no workers, or workers were killed.
        """
        try:
            yield from self._run(function, tasks, prepare)
        except Exception as error:
            if type(error).__name__ not in LOST:
                raise
            raise MeasureError(
                "a worker was killed, perhaps for want of memory; repeat the command to go on, with fewer --jobs"
            ) from error

    def _run(
        self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], prepare: Callable[[], None] | None
    ) -> Iterator[Any]:
        """Results as they are ready; errors are the backend's."""
        if self.backend == "loky":
            if self.jobs > 1:
                yield from _in_processes(function, tasks, self.jobs, prepare)
            else:
                yield from (function(*task) for task in tasks)
            return
        with CLUSTERS[self.backend](self):
            calls = [joblib.delayed(function)(*task) for task in tasks]
            active, _ = get_active_backend()
            if active.supports_return_generator:
                yield from joblib.Parallel(n_jobs=self.jobs, return_as="generator_unordered", batch_size=1)(calls)
                return
            size = 2 * active.effective_n_jobs(-1)
            for start in range(0, len(calls), size):
                yield from joblib.Parallel(n_jobs=-1, batch_size=1)(calls[start : start + size])


def _in_processes(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    jobs: int,
    prepare: Callable[[], None] | None,
) -> Iterator[Any]:
    """Results from processes of this machine, as they are ready; the processes share its cores.

    `joblib.Parallel` is not used: it waits for ever where the thread dies that hands the results back. Processes that
    were prepared otherwise are not used again.

    Raises:
        MeasureError: that thread has died, for instance because no process could be started.
    """
    threads = str(max(1, joblib.cpu_count() // jobs))
    env = {name: threads for name in ParallelBackendBase.MAX_NUM_THREADS_VARS if name not in os.environ}
    executor = get_reusable_executor(max_workers=jobs, timeout=IDLE_SECONDS, initializer=prepare, env=env)
    pending = {executor.submit(function, *task) for task in tasks}
    try:
        while pending:
            done, pending = concurrent.futures.wait(
                pending, WATCH_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
            )
            yield from (future.result() for future in done)
            if not done and all(thread.name != MANAGER for thread in threading.enumerate()):
                _end_processes(executor)
                raise MeasureError(
                    "the processes of this machine can no longer be reached; repeat the command to go on"
                )
    finally:
        if pending:  # there was an error, or the caller stopped
            executor.shutdown(wait=False, kill_workers=True)


def _end_processes(executor: Any) -> None:
    """End the processes of an executor whose thread has died: it would have, and Python waits for them at its end."""
    for process in list((executor._processes or {}).values()):
        process.terminate()
        process.join()


@contextlib.contextmanager
def _dask(workers: Workers) -> Iterator[None]:
    """Let joblib send its tasks to a Dask cluster."""
    with needing("--backend dask needs Dask", "pip install 'ofa-deploy[dask]'"):
        from distributed import Client
    if workers.address is None:
        raise OfaDeployError("--backend dask needs the scheduler's --address, such as tcp://127.0.0.1:8786")
    try:
        client = Client(workers.address, timeout=10, set_as_default=True)
    except (OSError, ValueError) as error:
        raise MeasureError(f"no Dask scheduler answers at {workers.address}; start one with: dask scheduler") from error
    with client:
        if not client.nthreads():
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(1, timeout=10)
        if not client.nthreads():
            raise MeasureError(
                f"the Dask scheduler at {workers.address} has no workers; start some with: "
                f"dask worker {workers.address} --nthreads 1 --nworkers 2"
            )
        with joblib.parallel_config(backend="dask"):
            yield


@contextlib.contextmanager
def _ray(workers: Workers) -> Iterator[None]:
    """Let joblib send its tasks to a Ray cluster, or to Ray on this machine."""
    with needing("--backend ray needs Ray", "pip install 'ofa-deploy[ray]'"):
        import ray
        from ray.util.joblib import register_ray
    if workers.address not in (None, "auto") and not _answers(str(workers.address)):
        raise MeasureError(f"no Ray cluster answers at {workers.address}; start one with: ray start --head")
    try:
        ray.init(address=workers.address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise MeasureError(f"no Ray cluster answers at {workers.address}; start one with: ray start --head") from error
    register_ray()
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    """Whether anything listens at an address (Ray itself tries for minutes)."""
    url = urlsplit(address if "//" in address else f"//{address}")
    try:
        with socket.create_connection((url.hostname or "127.0.0.1", url.port or 6379), timeout=5):
            return True
    except (OSError, ValueError):
        return False


CLUSTERS: dict[str, Callable[[Workers], contextlib.AbstractContextManager[None]]] = {"dask": _dask, "ray": _ray}
"""Contexts in which joblib sends its tasks to a cluster, by the name of the backend."""
