"""Messages of Lightning and others that are no news here, each with the reason."""

import logging
import threading
import warnings

IGNORED = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of torch.utils._pytree, as of 2.6.6 with torch 2.15
    # Lightning 2.6.6 calls jsonargparse by names that are deprecated since 4.49 and leave in 5 (see the bound on it).
    r"(?s).*(only one JsonargparseDeprecationWarning|was deprecated in v4\.49)",
    r".*Checkpoint directory .* exists and is not empty",  # a run resumes in its own folder
    r".*callbacks used to create the checkpoint",  # `test` needs none of those that wrote it
    r".*smaller than the logging interval",  # curves are logged once per epoch, whatever the interval in steps
    r"Total length of `list` across ranks is zero",  # val_size 0 asks for just that
    r".*does not have many workers",  # a batch is one slice of a tensor in memory: workers would only slow it down
    r".*GPU available but not used",  # the CPU was asked for
)


def be_quiet() -> None:
    """Silence them."""
    for pattern in IGNORED:
        warnings.filterwarnings("ignore", pattern)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    threading.excepthook = _unless_raised_again


def _unless_raised_again(args: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but for TensorBoard's writer: its next call raises a full disk again."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)
