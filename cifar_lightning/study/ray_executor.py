"""Execute runs on a Ray cluster: each run is a task, on whichever node has processors and GPUs left for it.

A task executes its run as the study does on one machine, in a process of `executor.Local`. Ray knows nothing of that
process, which follows the task's: however the task ends (stopped, killed, node or study gone), the run saves and ends.
Until then it holds the lock of its folder, and the next task of the same run waits for that.
"""

import logging
import os
import re
import signal
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from cifar_lightning.errors import InputError, ReportedError, check
from cifar_lightning.results import store
from cifar_lightning.study.executor import Event, Events, Local, leave_slurm
from cifar_lightning.study.plan import Run, is_missing
from cifar_lightning.utils import files

RETRIES = 3  # of a run whose worker or node was lost, as many as Ray's own
CONNECT_SECONDS = 5  # Ray itself would try for minutes, deaf to Ctrl-C
SETTINGS = ("CIFAR10_ROOT", "OMP_NUM_THREADS")  # of the environment, that a run reads


@dataclass(frozen=True)
class Ray:
    """Tasks on a Ray cluster, as many at a time as it has room for; the study is to hold the lock of its folder."""

    address: str | None = None  # None: RAY_ADDRESS, or the cluster that runs here, or else this machine alone
    cpus: int = 1  # of each run, which has as many threads
    gpus: float = 0.0  # of each run, which sees no other; a fraction is shared

    def __call__(self, runs: Sequence[Run]) -> Events:
        if not runs:
            return
        place = Place(Path.cwd(), runs[0].study, {name: os.environ[name] for name in SETTINGS if name in os.environ})
        running = dict[Any, Run]()  # by task
        try:
            with _connected(self.address):
                nodes = [node for node in ray.nodes() if node["Alive"]]
                self._check_room(nodes)
                _check_shared(nodes, place)
                # Ray would not retry them right: of the second try it drops as many lines as it had of the first.
                task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, num_returns="streaming")
                yield from _events(task(_execute).remote, place, runs, running)
        finally:
            if running:
                tqdm.write("stopping: running trainings save first (again: at once)", file=sys.stderr)
            for run in running.values():
                if run.files.path.is_dir():
                    with files.locked(run.files.path, waiting=f"{run.title}: saves"):
                        pass

    def _check_room(self, nodes: Sequence[Any]) -> None:
        """Refuse runs for which no node is large enough: they would wait for ever."""
        sizes = sorted((node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes)
        fits = any(cpus >= self.cpus and gpus >= self.gpus for cpus, gpus in sizes)
        largest = " or ".join(f"{cpus:g} and {gpus:g}" for cpus, gpus in dict.fromkeys(reversed(sizes)))
        check(fits, "cpus-per-run and gpus-per-run", (self.cpus, self.gpus), f"what a node has: up to {largest}")


@dataclass(frozen=True)
class Place:
    """Where the study was started, for processes on other nodes."""

    folder: Path  # relative paths begin there
    study: Path
    environment: dict[str, str]

    def enter(self) -> None:
        """Move this process there; raise an `InputError` if this node does not share it."""
        if not self._is_shared():
            node = f"node {socket.gethostname()} ({ray.util.get_node_ip_address()})"
            cause = f"{self.folder / self.study} is not there, or not locked as it is where the study runs"
            raise InputError(node, cause, "use a disk that all nodes share, locks included, by the same path")
        os.environ.update(self.environment)
        leave_slurm()  # before anything is imported that takes this process for one of SLURM's

    def _is_shared(self) -> bool:
        try:
            os.chdir(self.folder)
            with files.locked(self.study.resolve(strict=True)):  # or else it would be made here
                return False
        except BlockingIOError:  # the study has it
            return True
        except OSError:
            return False


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster, or raise an `InputError`; in the end stop the tasks, which the runs notice."""
    address, handler = address or os.environ.get("RAY_ADDRESS"), signal.getsignal(signal.SIGTERM)
    named = (None, "auto", "local")  # Ray's own words: local is this machine alone, whatever runs here
    known = address in named or re.fullmatch(r"[^/]+:\d+", str(address)) is not None
    check(known, "address", address, "auto, local, or HOST:PORT as `ray start --head` prints it")
    try:
        if address not in named:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
    except (OSError, ValueError, RuntimeError) as error:  # nobody answers; another version of Ray or Python; ...
        remedy = "start it with `ray start`, on this machine, too, and with the same versions"
        raise InputError("address", f"{address}: {' '.join(str(error).split())}", remedy) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_shared(nodes: Sequence[Any], place: Place) -> None:
    """Raise an `InputError` if a node does not share the study's folder, or lacks this package."""
    probe, answers = ray.remote(num_cpus=0)(Place.enter), []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        answers.append(probe.options(scheduling_strategy=there).remote(place))
    for node, answer in zip(nodes, answers, strict=True):
        with suppress(RayError):  # the node has died meanwhile
            _get(answer, f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})")


def _get(answer: Any, where: str) -> Any:
    """Return what a task has yielded; raise as an `InputError` what it has raised."""
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, ReportedError):
            raise error.cause from None
        cause = traceback.format_exception_only(error.cause)[-1].strip().splitlines()[-1]
        raise InputError(where, f"can't execute runs ({cause})", "install there what is installed here") from None


def _events(
    task: Callable[[Place, Run], Any], place: Place, runs: Sequence[Run], running: dict[Any, Run]
) -> Iterator[Event]:
    """Yield what the runs print, and each one's end; `running` holds those that have not ended, by task."""
    running.update((task(place, run), run) for run in runs)
    lost = Counter[str]()
    while running:
        ready = ray.wait([*running], num_returns=1)[0][0]
        run = running[ready]
        try:
            event = _get(next(ready), run.title)
        except RayError as error:
            lost[run.address] += 1
            if not is_missing(run, store.every_record(run.study).get(run.address), retry=True):
                event = 0  # the worker was lost right after the run's last word
            elif lost[run.address] > RETRIES:
                why = f"{lost[run.address]} times ({str(error).splitlines()[0]})"
                yield run, f"error: its Ray worker was lost {why}; look into Ray's logs"
                event = 1
            else:
                tqdm.write(f"{run.title}: its Ray worker was lost; another resumes it", file=sys.stderr)
                running[task(place, run)] = running.pop(ready)
                continue
        if isinstance(event, int):
            del running[ready]
        yield run, event


def _execute(place: Place, run: Run) -> Iterator[str | int]:
    place.enter()
    # Ray's SIGTERM comes a moment before its SIGKILL, which alone is to stop the run: twice would be at once.
    signal.signal(signal.SIGTERM, lambda *_: None)
    for _, event in Local(own_session=True)([run]):
        yield event
