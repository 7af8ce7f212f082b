"""Warnings and messages of Lightning and others that are no news here: each is named, so all else is heard."""

import logging
import re
import threading
import warnings

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
    r"(\[rank: \d+\] )?Seed set to|(GPU|TPU) available|LOCAL_RANK|Using \w+ Automatic Mixed Precision"
    r"|You are using a CUDA device|Initializing distributed|-{100}"
    r"|💡 Tip|Loading `train_dataloader` to estimate|`weights_only` was not set|`Trainer\.fit` stopped|Restor(ing|ed) "
    r"|Loaded model weights|\s*Detected KeyboardInterrupt"
)


SPEAKERS = (
    "lightning.fabric.utilities.distributed",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.accelerators.cuda",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
    "lightning.pytorch.utilities.rank_zero",
)


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
