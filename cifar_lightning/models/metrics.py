"""Loss and accuracy over an epoch, summed on the device and read once."""

import torch
from torch import Tensor
from torchmetrics import Metric


class LossAndAccuracy(Metric):
    """Mean cross-entropy and fraction correct over every image seen, whatever the sizes of the batches."""

    loss_sum: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # In float32 and int64: Apple's GPUs have no float64.
        for name, dtype in {"loss_sum": torch.float32, "correct": torch.int64, "count": torch.int64}.items():
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean cross-entropy in nats, shape (), logits, shape (B, 10), labels, int64, shape (B,)."""
        self.loss_sum += loss.detach().float() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` in nats and `acc` as a fraction, both float32, shape ()."""
        count = self.count.float()
        return {"loss": self.loss_sum / count, "acc": self.correct.float() / count}
