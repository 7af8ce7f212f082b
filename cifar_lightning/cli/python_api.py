"""`fit` for Python code: notebooks, and sweeps by Optuna or Ray. To import it is cheap, to call it imports PyTorch."""

import contextlib
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lightning.cli.app import interruption, run
from cifar_lightning.errors import InputError, ReportedError, RunError

if TYPE_CHECKING:  # it takes seconds
    from cifar_lightning.cli.lightning_cli import CLI


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
            return _result(run(["fit", *args]))
    except BaseException as error:
        if interrupted := interruption(error):
            raise interrupted from error
        if not isinstance(error, Exception):
            raise
        raise _reported(error) from error


def _result(cli: "CLI") -> Result:
    from cifar_lightning.callbacks.history import History
    from cifar_lightning.runs.layout import BEST, LAST, RunFolder
    from cifar_lightning.runs.tensorboard_logger import RunLogger

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
