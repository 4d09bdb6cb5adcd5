"""Tasks for many processes: they are dealt to the workers of a Ray cluster, and the answers come as they are ready.

Ray is an extra (`pip install 'divlens[ray]'`), and is imported when it is asked for.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import Any, Generic, TypeVar
from uuid import uuid4

from divlens.errors import DivlensError

PATIENCE = 10.0  # seconds until a cluster answers
AHEAD = 2  # tasks that a worker has: while it works on one, the next is there
MOST_DEATHS = 5  # of workers with one task: it is more likely the cause then

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def check_ray(address: object) -> None:
    """Raises DivlensError for what is no address, where Ray is not installed, and where nobody answers at an address:
    Ray itself asks again for minutes."""
    if not isinstance(address, str) or not address.strip():
        raise DivlensError(f'ray expects "auto" or the address of a cluster, got {address!r:.80}')
    if find_spec("ray") is None:
        raise DivlensError("ray expects the package ray, which is not installed: pip install 'divlens[ray]'")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise DivlensError(f"ray expects a cluster at {address}: {error}") from error


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Ray, connected: to the cluster at an address or, with "auto", to one that is known here or else to the cores and
    GPUs of this machine. A connection that was there before is used, and left as it is."""
    check_ray(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody of itself
    import ray

    if ray.is_initialized():
        yield ray
        return
    where = None if address == "auto" else address
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray has put its own in its place
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DivlensError(f"ray expects a cluster at {address}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True, eq=False)
class Job(Generic[Task]):
    """What a worker was told to do; without a task it was only asked whether it is there."""

    worker: Any
    task: Task | None
    deaths: int = 0


class Crew(Generic[Task, Answer]):
    """The workers of a run. `make`: a new one, by its number. Where one dies another takes its place, and its tasks are
    dealt again."""

    def __init__(self, ray: Any, make: Callable[[int], Any], size: int) -> None:
        self.ray, self.make, self.numbers = ray, make, count()
        self.jobs: dict[Any, Job[Task]] = {}  # by what Ray will give back
        self.again: deque[tuple[Task, int]] = deque()
        self.workers: list[Any] = []
        for _ in range(size):
            self.hire(0)

    def hire(self, deaths: int) -> None:
        """Start a worker. It gets tasks when it says that it is there: a busy cluster may not have room for it yet."""
        worker = self.make(next(self.numbers))
        self.workers.append(worker)
        self.jobs[worker.ready.remote()] = Job(worker, None, deaths)

    def answers(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        """Each task with its answer, in the order in which they are ready. Tasks are made as they are dealt. Raises
        what a worker raises, and DivlensError for a task with which one worker after the other dies."""
        fresh = ((task, 0) for task in tasks)
        open_ = True
        while open_ or self.again or any(job.task is not None for job in self.jobs.values()):
            (ready,), _ = self.ray.wait(list(self.jobs), num_returns=1)
            job = self.jobs.pop(ready)
            try:
                answer = self.ray.get(ready)
            except self.ray.exceptions.RayActorError as error:
                self.replace(job, error)
                continue
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None
            if job.task is not None:
                yield job.task, answer
            for _ in range(AHEAD if job.task is None else 1):
                task, deaths = self.again.popleft() if self.again else next(fresh, (None, 0))
                if task is None:
                    open_ = False
                    break
                self.jobs[job.worker.answer.remote(task)] = Job(job.worker, task, deaths)

    def dismiss(self) -> None:
        """End all workers: where the cluster stays, they would keep its cores."""
        for worker in self.workers:
            self.ray.kill(worker)

    def replace(self, job: Job[Task], error: Exception) -> None:
        """Of a worker that died each job ends so: the first brings another worker."""
        if job.deaths + 1 >= MOST_DEATHS:
            reason = " ".join(str(error).split())[:300]
            raise DivlensError(f"{MOST_DEATHS} workers of Ray died one after the other at the same work: {reason}")
        if job.task is not None:
            self.again.append((job.task, job.deaths + 1))
        if job.worker in self.workers:
            self.workers.remove(job.worker)
            self.hire(job.deaths + 1 if job.task is None else 0)


def dealt(
    tasks: Iterable[Task], worker: type, arguments: tuple[Any, ...], *, address: str, gpus: bool, cores: int
) -> Generator[tuple[Task, Any]]:
    """Each task with what `answer` of a worker made of it, in the order in which they are ready.

    `worker`: a class with `ready()` and `answer(task)`, of which each process has one, made of `arguments`. There is
    one for each GPU of the cluster, or for each `cores` cores of a machine. Raises DivlensError where there is no room
    for one.
    """
    with cluster(address) as ray:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = min(cores, max(int(machine.get("CPU", 0)) for machine in machines))
        size = sum(
            int(machine.get("GPU", 0)) if gpus else int(machine.get("CPU", 0)) // max(1, cores) for machine in machines
        )
        if not size:
            raise DivlensError(f"ray expects a cluster with a {'GPU' if gpus else 'CPU'}, but {address} has none")
        needs = {"num_gpus": 1} if gpus else {"num_cpus": max(1, cores)}
        actor = ray.remote(**needs)(worker)
        names = f"divlens-{uuid4().hex[:8]}"  # as Ray shows them
        crew = Crew(ray, lambda number: actor.options(name=f"{names}-{number}").remote(*arguments), size)
        try:
            yield from crew.answers(tasks)
        finally:
            crew.dismiss()
