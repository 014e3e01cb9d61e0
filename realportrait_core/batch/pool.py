"""Jobs on actors of Ray: each actor makes its worker once, networks and all, and then takes job after job.

Nothing here knows what a job is. An actor whose process dies is replaced, wherever the cluster has room, and its job is given to
another. Ray is imported only when a pool starts.
"""

import argparse
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import InputError, RealPortraitError

log = logging.getLogger(__name__)

LOCAL = "local"  # address of a Ray that is started on this machine for the run, and ends with it
TRIES = 3  # deaths of actors at one job, or at the start without any job done between them, before it is given up
MOST_CPUS = 4  # of an actor by default: more make one video little faster
PATIENCE = 60.0  # s without any event, after which a wait for room is reported
ANSWER = 10.0  # s for the cluster's first answer
STORE = 256 << 20  # bytes of the object store of a local Ray; jobs and results are small, larger ones go to disk

Job = TypeVar("Job")
Result = TypeVar("Result")
Make = Callable[[], Callable[[Job], Result]]  # run in the actor's process: loads what is needed and returns the worker


class WorkerDied(RealPortraitError):
    """A job whose actors' processes died again and again."""


@dataclass(frozen=True)
class Done(Generic[Job, Result]):
    """A job that is finished, well or not."""

    job: Job
    result: Result | None = None
    error: Exception | None = None  # what the worker raised, or WorkerDied


@dataclass(frozen=True)
class Share:
    """Of a node, for one actor."""

    gpus: float
    cpus: float

    @property
    def device(self) -> str:
        """For torch: Ray shows an actor the GPUs that it was given, and no others."""
        return "cuda" if self.gpus else "cpu"


# The command line of everything that runs on actors


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="actors; by default as many as there is room for")
    parser.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="SHARE",
        help="of one GPU, or several, for each actor: 0.5 puts two on a GPU, whose memory must hold both; 0 computes on CPUs. By "
        "default 1 where there are GPUs",
    )
    parser.add_argument(
        "--cpus-per-worker",
        type=float,
        metavar="N",
        help=f"cores for each actor; by default {MOST_CPUS}, or fewer where a node has not so many for each",
    )


# Ray


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to the Ray cluster at an address ("auto": the one that runs on this machine), or starts one for LOCAL.

    Raises InputError where the package ray is missing, or nothing answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"Spreading jobs over cores, GPUs and machines takes the package ray, which cannot be imported ({error}). Install the "
            f'pack\'s extra [batch] (`{sys.executable} -m pip install -e ".[batch]"` in its folder), or ray alone.'
        ) from error
    check_address(address)
    root = Path(__file__).resolve().parents[2]
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE} if address == LOCAL else {}
    try:
        ray.init(
            address=address,
            logging_level=logging.WARNING,
            # So that actors find this package at the same path, as they find the videos; on a node that has it installed it is
            # found anyway.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))}},
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise no_cluster(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raises InputError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        except (OSError, OverflowError) as error:
            raise no_cluster(address, error) from error


def no_cluster(address: str, error: Exception) -> InputError:
    return InputError(
        f"There is no Ray cluster at {address} ({error}). Start one with `ray start --head`, add machines with `ray start "
        "--address HOST:6379`, with the same versions of Python and ray, RAY_AUTH_MODE and token everywhere; or leave the address "
        "out, to use this machine."
    )


def nodes() -> list[dict[str, float]]:
    """What each living node has: {"CPU": 16, "GPU": 1, ...}."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def share_of(nodes: list[dict[str, float]], gpus: float | None = None, cpus: float | None = None) -> Share:
    """An actor's share, where it is not given: a GPU if a node has one, and at most MOST_CPUS cores, so that all GPUs are used."""
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU") for node in nodes) else 0.0
    if cpus is None:
        usable = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU")]
        each = [node["CPU"] / max(1, floor(node["GPU"] / gpus)) if gpus else node["CPU"] for node in usable]
        cpus = float(max(1, min([MOST_CPUS, *map(floor, each)])))
    if gpus < 0 or cpus <= 0:
        raise InputError(f"An actor of {gpus:g} GPUs and {cpus:g} CPUs cannot be: it needs a core, and GPUs from 0 on.")
    return Share(gpus, cpus)


def room(nodes: list[dict[str, float]], share: Share) -> int:
    """How many actors fit. Raises InputError where none does."""
    wanted = {"CPU": share.cpus, "GPU": share.gpus}
    found = sum(min(floor(node.get(name, 0) / amount) for name, amount in wanted.items() if amount) for node in nodes)
    if not found:
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(
            f"No node has room for an actor of {share.cpus:g} CPUs and {share.gpus:g} GPUs; they have {have}. Ask for less by "
            "--cpus-per-worker and --gpus-per-worker."
        )
    return found


# Jobs


class Actor:
    """In a process of its own. The worker is made by a method, since Ray reports what a constructor raises as a death."""

    def start(self, make: Make) -> str:
        self.work = make()
        return f"process {os.getpid()} on {socket.gethostname()}"

    def run(self, job: Any) -> Any:
        return self.work(job)


@dataclass
class Task(Generic[Job]):
    """A job on its way."""

    job: Job
    deaths: int = 0  # of actors, at it


def run_jobs(make: Make, jobs: Iterable[Job], share: Share, workers: int) -> Iterator[Done[Job, Result]]:
    """Every job's result, as soon as it is there; `jobs` is read no further ahead than there are actors.

    make, jobs and results must be picklable. An actor takes jobs when it is ready, so one for which there is no room yet delays
    nothing. What a worker raises belongs to its job, as do TRIES deaths of actors at it (WorkerDied). What `make` raises ends the
    run, and so does WorkerDied where the actors die before they are ready.
    """
    import ray

    remote = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(Actor)
    source = (Task(job) for job in jobs)
    waiting = deque(islice(source, workers))
    actors: dict[Any, Any] = {}  # what an actor is at, a job or its start -> the actor
    given: dict[Any, Task[Job]] = {}  # the jobs among these
    names: dict[Any, str] = {}  # actor -> its process
    early = 0  # deaths of actors since one was last of use

    def add_actor() -> None:
        actor = remote.remote()
        actors[actor.start.remote(make)] = actor

    def hand_over(actor: Any) -> None:
        waiting.extend(islice(source, 0 if waiting else 1))
        if not waiting:
            ray.kill(actor)
            return
        task = waiting.popleft()
        future = actor.run.remote(task.job)
        actors[future], given[future] = actor, task
        log.debug("%s: %s", names[actor], task.job)

    def replace(actor: Any, task: Task[Job] | None, death: Exception) -> Iterator[Done]:
        nonlocal early
        early += 1
        ray.kill(actor)  # it may only be out of reach
        if task is None and early >= TRIES * workers:
            raise WorkerDied(
                f"{early} processes died before they were ready, as when the memory does not hold the networks of all of them: use "
                f"fewer --workers, or a larger share for each ({last_line(death)})."
            ) from death
        if task is not None:
            task.deaths += 1
            log.warning("%s died at %s, for the %d. time of at most %d", names[actor], task.job, task.deaths, TRIES)
            if task.deaths < TRIES:
                waiting.append(task)
            else:
                yield Done(task.job, error=WorkerDied(f"{TRIES} processes died at it, as when the memory is full."))
        waiting.extend(islice(source, 0 if waiting else 1))
        if waiting:
            add_actor()

    try:
        for _ in range(len(waiting)):
            add_actor()
        while waiting or given:
            ready, _ = ray.wait(list(actors), timeout=PATIENCE)
            if not ready:
                if not given:
                    log.warning("Waiting for %g CPUs and %g GPUs, which the cluster has not free.", share.cpus, share.gpus)
                continue
            actor, task = actors.pop(ready[0]), given.pop(ready[0], None)
            done: Done[Job, Result] | None = None
            try:
                result = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:  # raised by our code; anything else of Ray's is a process, or a node, lost
                cause = error.cause if isinstance(error.cause, Exception) else error
                if task is None:
                    raise cause from error
                done = Done(task.job, error=cause)
            except ray.exceptions.RayError as death:
                yield from replace(actor, task, death)
                continue
            else:
                if task is None:
                    names[actor] = result
                else:
                    done = Done(task.job, result)
            early = 0
            hand_over(actor)
            if done is not None:
                yield done
    finally:
        for actor in actors.values():
            ray.kill(actor)


def last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
