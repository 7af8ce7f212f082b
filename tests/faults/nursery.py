"""Commands in processes of their own, to be killed: forked from one that has imported everything, so each is cheap."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass
class Child:
    """A command that runs."""

    pid: int
    output: Path
    _replies: Any

    def wait(self) -> int:
        """Its exit status, negative for the signal that it died of."""
        return int(json.loads(self._replies.readline())["status"])

    def run(self) -> tuple[int, str]:
        """Its exit status and what it said."""
        return self.wait(), self.output.read_text()


class Nursery:
    """Starts commands, one at a time."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
        environment.pop("CIFAR10_ROOT", None)
        command = [sys.executable, "-m", __name__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def start(self, folder: Path, args: Sequence[str], *, before: str = "", given: Any = None) -> Child:
        """Starts a command of this program in a folder.

        Args:
            folder: Where it works; what it says goes to `output.txt` beside it.
            args: The command's words.
            before: A function to call first, in the child, `package.module:name`.
            given: What to call it with.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        output = folder.with_name(f"{folder.name}.txt")
        output.touch()  # the child may be killed before it writes a word
        task = {"folder": str(folder), "args": list(args), "before": before, "given": given, "output": str(output)}
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return Child(json.loads(self.process.stdout.readline())["pid"], output, self.process.stdout)


def wrapped(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts a wrapper around `package.module:Class.method` or `package.module:function`."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    setattr(owner, name, wrap(getattr(owner, name)))


def at_call(target: str, nth: int, act: Callable[[], Any]) -> None:
    """Does something at the nth call of a function, before it."""
    calls = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth:
                act()
            return function(*args, **kwargs)

        return armed

    wrapped(target, wrap)


def _tasks() -> Iterator[dict[str, Any]]:
    while line := sys.stdin.readline():
        yield json.loads(line)


def _live(task: dict[str, Any]) -> int:
    """The life of a child."""
    from cifar_lightning.__main__ import main

    output = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Whoever runs the tests may have them ignored, a shell in the background say; here they are to work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(task["folder"])
    if task["before"]:
        module, _, name = task["before"].partition(":")
        getattr(importlib.import_module(module), name)(task["given"])
    return main(task["args"])


def _serve() -> None:
    from cifar_lightning.data import synthetic

    importlib.import_module("cifar_lightning.cli.lightning_cli")
    importlib.import_module("tensorboard.summary")
    sets = {train: synthetic.make(train=train) for train in (True, False)}
    setattr(synthetic, "make", lambda *, train: sets[train])  # noqa: B010 - mypy minds an assignment
    for task in _tasks():
        pid = os.fork()
        if not pid:
            status = 99
            with contextlib.suppress(SystemExit):
                try:
                    status = _live(task)
                except KeyboardInterrupt:  # before the command began
                    status = 130
                except SystemExit as stop:
                    status = int(stop.code or 0)
                finally:
                    try:
                        sys.stdout.flush()
                        sys.stderr.flush()
                    finally:
                        os._exit(status)
        print(json.dumps({"pid": pid}), flush=True)
        print(json.dumps({"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}), flush=True)


if __name__ == "__main__":
    _serve()
