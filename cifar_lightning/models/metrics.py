"""Loss and accuracy over an epoch, summed on the device and read once."""

import torch
from torch import Tensor
from torchmetrics import Metric


class LossAndAccuracy(Metric):
    """Mean cross-entropy and fraction correct over every image seen, whatever the sizes of the batches.

    All in float32 and int64: Apple's GPUs have no float64.
    """

    full_state_update = False
    higher_is_better = None

    loss_sum: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            loss: Mean cross-entropy of the batch in nats, shape ().
            logits: Shape (B, 10).
            labels: int64, shape (B,).
        """
        self.loss_sum += loss.detach().float() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        self.count += len(labels)

    def compute(self) -> dict[str, Tensor]:
        """`loss` in nats and `acc` as a fraction, float32, shape ()."""
        count = self.count.float()
        return {"loss": self.loss_sum / count, "acc": self.correct.float() / count}

    def sums(self) -> dict[str, Tensor]:
        """What has come together so far, a copy; nothing if nothing came."""
        if not self.update_called:
            return {}
        return {"loss_sum": self.loss_sum.clone(), "correct": self.correct.clone(), "count": self.count.clone()}

    def restore(self, sums: dict[str, Tensor]) -> None:
        """Goes on from such sums."""
        for name, value in sums.items():
            setattr(self, name, value)
        self._update_count = 1  # torchmetrics: there is something to compute
