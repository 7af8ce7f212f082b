"""`python -m cifar_lightning`, and the script `cifar-lightning`."""

import importlib
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from cifar_lightning.cli import app

HELP = """\
An MLP and a CNN on CIFAR-10. Commands:

  python -m cifar_lightning fit --config configs/cnn.yaml        train (mlp.yaml: the MLP; speedrun.yaml: fast)
  python -m cifar_lightning fit --resume RUN                     resume a run that was stopped
  python -m cifar_lightning test --ckpt_path RUN                 measure its best epoch on the test set
  python -m cifar_lightning predict --ckpt_path RUN --data.images my_images/
  python -m cifar_lightning validate --ckpt_path RUN
  python -m cifar_lightning export --ckpt_path RUN               write it as ONNX; predict --model FILE.onnx
  python -m cifar_lightning benchmark                            measure the speed of `fit` on this machine
  python -m cifar_lightning study --config configs/study.yaml    run all experiments and write a report
  python -m cifar_lightning report logs/study                    write that report again from its records
  tensorboard --logdir logs                                      look at the curves

RUN is a run's folder, such as logs/cnn/version_0. `fit --help` lists every setting; each is a key of the
configuration file and a flag: --model.dropout 0.2 --data.batch_size 200 --trainer.max_epochs 20."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; `args` is what was typed after the program's name."""
    # GNU OpenMP reads it when PyTorch is imported: how often a thread that waits for another looks before it sleeps. By
    # default it takes its core from other programs for milliseconds; see `performance.own_cores`.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    return app.guarded(_dispatch, sys.argv[1:] if args is None else args)


def _dispatch(args: Sequence[str]) -> int:
    match args:
        case [] | ["-h" | "--help", *_]:
            print(HELP, flush=True)
            return 0
        case ["fit" | "validate" | "test" | "predict", *flags] if _names_onnx(flags):
            return app.lightning(args, "cifar_lightning.export.exported:ExportedCLI")
        case ["benchmark" | "study" | "report" | "export" as name, *flags]:
            # Each imports only what it needs: Lightning alone takes seconds.
            status: int = getattr(importlib.import_module(f"cifar_lightning.{name}.command"), name)(flags)
            return status
    return app.lightning(args)


def _names_onnx(flags: Sequence[str]) -> bool:
    """Return whether --model is an exported file, not a class."""
    models = [after for flag, after in pairwise(["", *flags]) if flag == "--model" or after.startswith("--model=")]
    return any(model.endswith(".onnx") for model in models)


if __name__ == "__main__":
    sys.exit(main())
