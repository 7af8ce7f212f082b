"""What Lightning and others say that is no news here, each with the reason."""

import logging
import threading
import warnings


def be_quiet() -> None:
    """Turns off what Lightning and others say that is no news here."""
    # TensorBoard writes in a thread; what goes wrong there, on a full disk say, the next call in this one raises again.
    threading.excepthook = _unless_told_elsewhere
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's own use of torch.utils._pytree, as of 2.6.6 with torch 2.15.
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\)")
    # Lightning 2.6.6 calls jsonargparse by names that are deprecated since 4.49 and leave in 5 (see the bound on it).
    warnings.filterwarnings("ignore", r"(?s).*(only one JsonargparseDeprecationWarning|was deprecated in v4\.49)")
    # A run that goes on does so in its own folder.
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty")
    # `test` needs none of the callbacks that wrote the checkpoint.
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint")
    # Curves are logged once an epoch, whatever the interval in steps.
    warnings.filterwarnings("ignore", ".*smaller than the logging interval")
    # val_size 0 asks for just that.
    warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
    # A batch is one slice of a tensor in memory: workers would only slow it down.
    warnings.filterwarnings("ignore", ".*does not have many workers")
    # The CPU was asked for.
    warnings.filterwarnings("ignore", ".*GPU available but not used")


def _unless_told_elsewhere(args: threading.ExceptHookArgs) -> None:
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)
