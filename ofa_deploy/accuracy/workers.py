"""Who does the measuring: processes of this machine, or the workers of a Dask or Ray cluster, all through joblib."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import joblib
from joblib.parallel import get_active_backend

from ofa_deploy.errors import MeasureError, OfaDeployError
from ofa_deploy.optional import needing

LOST = ("TerminatedWorkerError", "KilledWorker", "WorkerCrashedError")
"""What joblib's own processes, Dask and Ray call it when workers die."""


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        jobs: processes on this machine; a cluster uses all of its workers.
        backend: one of `BACKENDS`.
        address: of the cluster's scheduler, e.g. `tcp://10.0.0.1:8786` (Dask) `ray://10.0.0.1:10001`, or `auto` (Ray).
    """

    jobs: int = 1
    backend: str = "loky"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise OfaDeployError(f"unknown backend {self.backend!r}; choose one of {', '.join(BACKENDS)}")
        if self.backend == "loky" and self.address is not None:
            raise OfaDeployError("--address is that of a cluster; add --backend dask or --backend ray")

    def run(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results of `function` for each tuple of arguments, as they are ready (from Ray a few at a time).

        A task whose worker is lost is given to another one by the cluster.

        Raises:
            OfaDeployError: the cluster's package is not installed.
            MeasureError: the cluster does not answer or has no workers, or workers were killed.
        """
        try:
            yield from self._run(function, tasks)
        except Exception as error:
            if type(error).__name__ not in LOST:
                raise
            raise MeasureError(
                "a worker was killed, perhaps for want of memory; repeat the command to go on, with fewer --jobs"
            ) from error

    def _run(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        with BACKENDS[self.backend](self):
            calls = [joblib.delayed(function)(*task) for task in tasks]
            active, _ = get_active_backend()
            if active.supports_return_generator:
                yield from joblib.Parallel(n_jobs=self.jobs, return_as="generator_unordered", batch_size=1)(calls)
                return
            size = 2 * active.effective_n_jobs(-1)
            for start in range(0, len(calls), size):
                yield from joblib.Parallel(n_jobs=-1, batch_size=1)(calls[start : start + size])


@contextlib.contextmanager
def _loky(workers: Workers) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _dask(workers: Workers) -> Iterator[None]:
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
    where = urlsplit(address if "//" in address else f"//{address}")
    try:
        with socket.create_connection((where.hostname or "127.0.0.1", where.port or 6379), timeout=5):
            return True
    except (OSError, ValueError):
        return False


BACKENDS: dict[str, Callable[[Workers], contextlib.AbstractContextManager[None]]] = {
    "loky": _loky,
    "dask": _dask,
    "ray": _ray,
}
"""What a backend needs around the work."""
