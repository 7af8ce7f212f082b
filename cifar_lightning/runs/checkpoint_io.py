"""The CheckpointIO plugin of the Trainer."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from cifar_lightning.runs.checkpoint import load
from cifar_lightning.utils import files


class DurableCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that survive the process and a power cut, and reads none but whole ones of plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint to disk, and only then give it its name."""
        buffer, path = io.BytesIO(), Path(path)
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one to the CPU: tensors and plain values alone, whatever is asked for."""
        return load(Path(path))
