"""`python -m cifar_lightning`, and the script `cifar-lightning`."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType

from cifar_lightning.errors import Interrupted

HELP = """\
An MLP and a CNN on CIFAR-10. The commands people need:

  python -m cifar_lightning fit --config configs/cnn.yaml        train (configs/mlp.yaml: the MLP)
  python -m cifar_lightning fit --resume RUN                     go on with a run that was stopped
  python -m cifar_lightning test --ckpt_path RUN/checkpoints/best.ckpt
  python -m cifar_lightning predict --ckpt_path RUN/checkpoints/best.ckpt --data.images my_pictures/
  python -m cifar_lightning validate --ckpt_path RUN/checkpoints/best.ckpt
  python -m cifar_lightning benchmark                            how fast all this is here
  python -m cifar_lightning study --config configs/study.yaml    all experiments of the report, and a document
  python -m cifar_lightning report logs/study                    that document again, from the records alone
  tensorboard --logdir logs                                      look at the curves

RUN is the run's folder, logs/cnn/version_0 say. `fit --help` lists every setting; each is a key of the
configuration file and a flag: --model.dropout 0.2 --data.batch_size 200 --trainer.max_epochs 20."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        args: What was typed after the program's name; None takes it from the process.

    Returns:
        Exit status: 0 done, 1 went wrong while running, 2 for what a person gave, 130 for Ctrl-C, 143 for SIGTERM.
    """
    typed = sys.argv[1:] if args is None else args
    try:
        with _terminable():
            return _run([arg for arg in typed if arg != "--debug"])
    except BrokenPipeError:  # whoever reads our words, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _stopped(Interrupted(signal.SIGINT))
    except Interrupted as interrupted:
        return _stopped(interrupted)
    except SystemExit as stop:  # Lightning's way to end after Ctrl-C
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        return _stopped(Interrupted(signal.SIGINT))
    except Exception as error:
        if signum := _signal_behind(error):
            return _stopped(Interrupted(signum))
        if "--debug" in typed:
            traceback.print_exc()
        return fail(error)


def _run(args: Sequence[str]) -> int:
    # Each imports only what it needs: Lightning alone takes seconds.
    if not args or args[0] in ("-h", "--help"):
        print(HELP, flush=True)
        return 0
    if args[0] == "benchmark":
        from cifar_lightning.benchmark.command import benchmark

        return benchmark(args[1:])
    if args[0] == "study":
        from cifar_lightning.study.command import study

        return study(args[1:])
    if args[0] == "report":
        from cifar_lightning.report.command import report

        return report(args[1:])
    from cifar_lightning import speed
    from cifar_lightning.cli import CLI
    from cifar_lightning.quiet import be_quiet

    be_quiet()
    speed.prepare()
    refused = CLI(args).datamodule.refused
    for error in refused:
        print(f"error: {error}", file=sys.stderr)
    return 1 if refused else 0


def fail(error: Exception) -> int:
    """Says what went wrong, in one line, and returns the exit status for it."""
    from cifar_lightning.messages import explain

    message = explain(error)
    print(f"error: {message.text}", file=sys.stderr)
    return message.status


def _signal_behind(error: BaseException | None) -> int:
    """The signal whose exception came up inside a library that made an error of its own of it; 0 if there was none."""
    while error := error and (error.__cause__ or error.__context__):
        if isinstance(error, Interrupted):
            return error.status - 128
        if isinstance(error, KeyboardInterrupt):
            return signal.SIGINT
    return 0


def _stopped(interrupted: Interrupted) -> int:
    print(f"error: {interrupted}", file=sys.stderr)
    return interrupted.status


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Has SIGTERM end the program as Ctrl-C does: through every `finally`."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():  # no other can
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
