"""Run a command and turn whatever ends it into an exit status: the engine behind `python -m cifar_lightning`."""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from cifar_lightning.errors import InputError, Interrupted, ReportedError, RunError, causes

if TYPE_CHECKING:  # it takes seconds
    from cifar_lightning.cli.lightning_cli import CLI

# Warnings that are no news here, each with the reason.
IGNORED = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of torch.utils._pytree, as of 2.6.6 with torch 2.15
    # Lightning 2.6.6 calls jsonargparse by names that are deprecated since 4.49 and leave in 5 (see the bound on it).
    r"(?s).*(only one JsonargparseDeprecationWarning|was deprecated in v4\.49)",
    r".*Checkpoint directory .* exists and is not empty",  # a run resumes in its own folder
    r".*\.fit\(ckpt_path=(None\)` was called without|\"last\"\) is set)",  # it looks for OnExceptionCheckpoint's file
    r".*callbacks used to create the checkpoint",  # `test` needs none of those that wrote it
    r".*smaller than the logging interval",  # curves are logged once per epoch, whatever the interval in steps
    r"Total length of `list` across ranks is zero",  # val_size 0 asks for just that
    r".*does not have many workers",  # a batch is one slice of a tensor in memory: workers would only slow it down
    r"You requested to overfit but enabled",  # the data module shuffles nothing then
    r"Precision .*-mixed is not supported by the model summary",  # its weights are in 32 bits, as it counts them
    r".*GPU available but not used",  # the CPU was asked for
    r"\s*Unable to serialize instance",  # what config.yaml can't hold is refused
)


# What Lightning tells of every run, or what our own lines tell as well. All else it says reaches the screen.
NO_NEWS = re.compile(
    r"Seed set to|(GPU|TPU) available|LOCAL_RANK|Using \w+ Automatic Mixed Precision|You are using a CUDA device"
    r"|💡 Tip|Loading `train_dataloader` to estimate|`weights_only` was not set|`Trainer\.fit` stopped|Restor(ing|ed) "
    r"|Loaded model weights|\s*Detected KeyboardInterrupt"
)


SPEAKERS = (
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.accelerators.cuda",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.utilities.rank_zero",
)


def guarded(command: Callable[[Sequence[str]], int], args: Sequence[str]) -> int:
    """Run a command; print what went wrong as one line, with a traceback only after `--debug`.

    Return 0 if it is done, 1 if it failed while running, 2 for wrong input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
                for name in {"SIGTERM", "SIGUSR1"} & {*signal.Signals.__members__}:  # Windows lacks the latter
                    signum = signal.Signals[name]
                    stack.callback(signal.signal, signum, signal.signal(signum, _interrupt))
            try:
                return command([arg for arg in args if arg != "--debug"])
            except BrokenPipeError:  # the reader of our output, `head` say, has closed it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            except Exception as error:
                if _interruption(error):
                    raise
                if "--debug" in args:
                    traceback.print_exc()
                return report_error(error)
    except BaseException as error:
        if interrupted := _interruption(error):
            print(interrupted, file=sys.stderr)
            return interrupted.status
        raise


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)  # it ends the program as Ctrl-C does: through every `finally`


def _interruption(error: BaseException) -> Interrupted | None:
    for each in causes(error):  # Lightning and extension modules turn the exception of a signal into others
        if isinstance(each, KeyboardInterrupt | Interrupted):
            return each if isinstance(each, Interrupted) else Interrupted(signal.SIGINT)
    return None


def report_error(error: Exception) -> int:
    """Print one line on what went wrong and return the exit status for it."""
    from cifar_lightning.cli.error_messages import explain  # imports Lightning, which takes seconds

    text, status = explain(error)
    print(f"error: {text}", file=sys.stderr)
    return status


def lightning(args: Sequence[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict` and return the exit status; raises what goes wrong."""
    refused = _run(args).datamodule.refused
    for error in refused:
        print(f"error: {error}", file=sys.stderr)
    return 1 if refused else 0


def _run(args: Sequence[str]) -> "CLI":
    from cifar_lightning.cli.lightning_cli import CLI
    from cifar_lightning.utils import performance

    with _alone(args):
        be_quiet()
        performance.prepare()
        return CLI(args)


@contextlib.contextmanager
def _alone(args: Sequence[str]) -> Iterator[None]:
    """Refuse a command while another thread is at one: both would draw from the one random generator of the process."""
    if not _AT_WORK.acquire(blocking=False):
        cause = "another thread of this process is at work, and its random numbers would change"
        raise InputError(" ".join(args[:1]), cause, "wait for it, or give each a process of its own")
    try:
        yield
    finally:
        _AT_WORK.release()


_AT_WORK = threading.RLock()  # a callback may run a command within its own


@dataclass(frozen=True)
class Result:
    """The result of `fit`."""

    rows: list[dict[str, float]]  # the curves, as in metrics.csv: a row per epoch
    best: Path | None  # the checkpoint with the highest val/acc; the last where nothing is validated, or none
    folder: Path | None  # of the run; None where nothing is kept


def fit(args: Sequence[str]) -> Result:
    """Train from Python, as `python -m cifar_lightning fit` does with these arguments and to the same bits.

    For notebooks, and for sweeps by Optuna or Ray:

        def objective(trial):
            rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
            result = fit(["--config", "configs/mlp.yaml", "--model.lr", str(rate)])
            return max(row["val/acc"] for row in result.rows)

    A process trains one at a time, so let Optuna use processes on one storage, not `n_jobs` threads; Ray does already.

    Raises:
        InputError: Something that was given can't be used, or another thread is at work.
        RunError: Training failed.
        Interrupted: Ctrl-C or SIGTERM; as a `BaseException` it ends a sweep, too. The run is saved.
    """
    try:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # Lightning leaves it ignored after Ctrl-C
                stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
            return _result(_run(["fit", *args]))
    except BaseException as error:
        if interrupted := _interruption(error):
            raise interrupted from error
        if not isinstance(error, Exception):
            raise
        raise _reported(error) from error


def _result(cli: "CLI") -> Result:
    from cifar_lightning.callbacks.history import History
    from cifar_lightning.runs.layout import BEST, LAST, RunFolder
    from cifar_lightning.runs.logger import RunLogger

    trainer: Any = cli.trainer  # its type does not tell of its callbacks
    (history,) = (each for each in trainer.callbacks if isinstance(each, History))
    rows = history.rows or (cli.restored.rows if cli.restored else [])  # all epochs were done before
    folder = next((Path(each.log_dir) for each in trainer.loggers if isinstance(each, RunLogger)), None)
    kept = [path for name in (BEST, LAST) if folder and (path := RunFolder(folder).checkpoint(name)).exists()]
    return Result(list(rows), kept[0] if kept else None, folder)


def _reported(error: Exception) -> ReportedError:
    from cifar_lightning.cli.error_messages import explain

    text, status = explain(error)
    field, _, rest = text.partition(": ")
    cause, _, remedy = rest.rpartition("; ")
    return (InputError if status == InputError.status else RunError)(field, cause, remedy)


def be_quiet() -> None:
    """Silence messages of Lightning and others that are no news here."""
    for pattern in IGNORED:
        warnings.filterwarnings("ignore", pattern)
    for name in SPEAKERS:
        logging.getLogger(name).addFilter(_is_news)
    threading.excepthook = _unless_raised_again


def _is_news(record: logging.LogRecord) -> bool:
    return not NO_NEWS.match(record.getMessage())


def _unless_raised_again(args: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but for TensorBoard's writer: its next call raises a full disk again."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)
