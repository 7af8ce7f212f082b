"""The metrics of every stage, summed on the device."""

import torch
from torch import Tensor
from torchmetrics import Metric


class LossAndAccuracy(Metric):
    """Mean cross-entropy, in nats, and fraction correct over every image, of the mean losses of batches of any size."""

    loss_sum: Tensor
    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # In float32 and int64: Apple's GPUs have no float64.
        for name, dtype in {"loss_sum": torch.float32, "correct": torch.int64, "count": torch.int64}.items():
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        # Not in place. States that were reset in inference mode can't be changed so. And in the precision of a model,
        # to which it casts its metrics' states, bfloat16 would lose what is small beside a sum, and float16 overflow.
        self.loss_sum = self.loss_sum + loss.detach().float() * len(labels)
        self.correct = self.correct + (logits.argmax(1) == labels).sum()
        self.count = self.count + len(labels)

    def compute(self) -> dict[str, Tensor]:
        return self.means()  # of all processes: torchmetrics sums the states before

    def means(self) -> dict[str, Tensor]:
        """Return the same of the images of this process alone."""
        return {"loss": self.loss_sum / self.count.float(), "acc": self.correct.float() / self.count.float()}
