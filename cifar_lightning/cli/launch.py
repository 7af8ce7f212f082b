"""The processes of a command on several devices: one per device, started at once, ended together.

Lightning's own launcher starts the others when the first has imported and parsed everything, which doubles the time to
the first step, and leaves them behind, or the first waiting, when one is killed. These read the same variables as those
of torchrun, so to the Trainer they are processes that someone else has started.
"""

import argparse
import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from cifar_lightning.cli.config_files import flat, load_yaml
from cifar_lightning.errors import InputError, Interrupted, RunError, SharedError, causes
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils.rank import rank

FOLLOWS = "CIFAR_LIGHTNING_FOLLOWS"  # set in a process that ends with the one that has started it
# Seconds for the first process to fail by itself when another has ended: NCCL waits half an hour for it.
GRACE = 5
# The words of gloo and NCCL; PyTorch's own errors, of the store where processes meet too, are of classes Dist...Error.
LOST = "(?i)\\b(gloo|nccl)|connection (closed|reset|refused) by peer"
SIGNALLED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # what a process returns that a signal has ended in order


class ProcessError(RunError):
    """Another process of this command ended before its time."""

    def __init__(self, process: int, processes: int, status: int) -> None:
        self.told = status == RunError.status  # by that process
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        remedy = "start again (a run: fit --resume RUN)"
        super().__init__("trainer.devices", f"process {process} of {processes} {how}", remedy)
        self.status = status if status in (InputError.status, *SIGNALLED) else RunError.status


def told(error: BaseException, status: int) -> bool:
    """Return whether another process of this command tells what went wrong."""
    kinds = [type(each) for each in causes(error) if not isinstance(each, ProcessError) or each.told]
    if not rank():
        return ProcessError in kinds
    # What all of them find at the same place, or that the connection to one that failed is lost.
    return status == InputError.status or SharedError in kinds or lost_connection(error)


def lost_connection(error: BaseException) -> bool:
    """Return whether it comes of the end of another process."""
    runtime = [each for each in causes(error) if isinstance(each, RuntimeError)]
    return any(type(each).__name__.startswith("Dist") or re.search(LOST, str(each)) for each in runtime)


class Processes:
    """The other processes of this one's command on this machine."""

    def __init__(self, args: Sequence[str]) -> None:
        self.args, self.number = args, 1
        self._others: list[subprocess.Popen[bytes]] = []
        self._before: dict[str, str | None] = {}  # the environment
        self._over = threading.Event()

    def start(self, devices: int, nodes: int = 1) -> None:
        """Start a process for each further device of this machine; this one is for the first."""
        if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= {*os.environ}:
            remedy = "set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine, or start it by torchrun or srun"
            raise InputError("trainer.num_nodes", f"{nodes}, and nothing says where they meet", remedy)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        first, self.number = int(os.environ.get("NODE_RANK", 0)) * devices, devices
        shared = {**meeting, **os.environ, "LOCAL_WORLD_SIZE": str(devices)}
        for local in reversed(range(devices)):
            own = {**shared, "LOCAL_RANK": str(local), "RANK": str(first + local)}
            if local:
                command = [sys.executable, "-m", "cifar_lightning", *self.args]
                # In a group of its own: Ctrl-C is for this process, which takes the others along.
                other = subprocess.Popen(command, env={**own, FOLLOWS: "1"}, stdin=subprocess.PIPE, process_group=0)
                self._others.insert(0, other)
            else:
                self._before = {name: os.environ.get(name) for name in own if os.environ.get(name) != own[name]}
                os.environ.update(own)
        threading.Thread(target=self._watch, daemon=True).start()

    def failure(self, seconds: float) -> ProcessError | None:
        """Return how the first of them to fail has ended, if one does within these seconds."""
        for number, other in enumerate(self._others, start=1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                if status := other.wait(seconds):
                    return ProcessError(number, self.number, status)
        return None

    def end(self, seconds: float) -> None:
        """End what has not ended in these seconds, and forget all."""
        self._over.set()
        for other in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(seconds)
            assert other.stdin
            with contextlib.suppress(BrokenPipeError):  # it has ended
                other.stdin.write(b"\n")
                other.stdin.close()  # it follows
        for other in self._others:
            with contextlib.suppress(subprocess.TimeoutExpired):
                other.wait(GRACE)
            other.kill()
            other.wait()
        for name, value in self._before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            if (failure := self.failure(0)) and not self._over.wait(GRACE):
                if not failure.told:
                    print(f"error: {failure}", file=sys.stderr, flush=True)
                os._exit(failure.status)


@contextlib.contextmanager
def processes(args: Sequence[str]) -> Iterator[Processes]:
    """Have processes for what a command asks for by flags and files, or starts itself; end them with it."""
    ours = Processes(args)
    seconds = 0.0
    try:
        # Under SLURM only Lightning knows whether `srun` starts them.
        if not {"LOCAL_RANK", "SLURM_JOB_ID"} & {*os.environ} and math.prod(asked := _asked(args)) > 1:
            ours.start(*asked)
        yield ours
        seconds = 30
        if failure := ours.failure(seconds):
            raise failure
    except Exception as error:
        if lost_connection(error) and (failure := ours.failure(GRACE)):
            raise failure from error
        raise
    finally:
        ours.end(seconds)


def _asked(args: Sequence[str]) -> tuple[int, int]:
    """Return how many devices and nodes are asked for, as far as that shows before anything is imported."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    parser.add_argument("--resume")
    names = ("trainer.devices", "trainer.num_nodes")
    for name in names:
        parser.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS)
    with contextlib.suppress(Exception):  # what is wrong with it, or no plain number, is for the real parser
        known, _ = parser.parse_known_args(args)
        found: dict[str, Any] = dict.fromkeys(names, 1)
        resumed = [RunFolder(Path(known.resume)).config] if known.resume else []
        for file in (*resumed, *map(Path, known.config)):
            found |= flat(load_yaml(file))
        found |= vars(known)
        return int(found[names[0]]), int(found[names[1]])
    return 1, 1


@contextlib.contextmanager
def rank_zero_speaks() -> Iterator[None]:
    """Have the other processes print nothing."""
    with contextlib.ExitStack() as stack:
        if rank():
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def stderr() -> TextIO | None:
    """Return where errors go, also those of a process that prints nothing else."""
    return sys.__stderr__ if rank() else sys.stderr


def by_torchrun() -> dict[str, int]:
    """Return devices and nodes for which torchrun has started processes; {} if it has not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {}
    local, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": local, "num_nodes": everywhere // local}


def end_at_sigterm(launcher: Any) -> None:
    """End a process by SIGTERM while Lightning's handler of it is in force, as one that trains alone; it would hang.

    That handler has the launcher kill its children, and then broadcasts to processes that do not listen (Lightning's
    pull request 20825).
    """
    kill = launcher.kill

    def kill_and_end(signum: int) -> None:
        kill(signum)
        if signum == signal.SIGTERM:
            raise Interrupted(signum)

    launcher.kill = kill_and_end


def follow() -> None:
    """End this process with the one that has started it, whatever ends that."""
    if FOLLOWS in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if not os.read(sys.stdin.fileno(), 1) and os.environ["LOCAL_RANK"] == "1":  # it was killed, and can't tell
        print(
            f"error: {ProcessError(0, int(os.environ['LOCAL_WORLD_SIZE']), -signal.SIGKILL)}", file=stderr(), flush=True
        )
    os._exit(1)
