"""A convolutional network, trained fast: to 93.7 % on two CPU cores in 15 minutes (Jordan 2024, arXiv:2404.00498)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_lightning.data.transforms import normalize
from cifar_lightning.errors import InputError, check
from cifar_lightning.models.base import NUM_CLASSES, ImageClassifier

FILTERS = 24  # twelve that whiten patches of 2x2 pixels in 3 channels, and their negatives
IMAGES = 2_000  # whose patches are whitened: two million, for a covariance of 12x12
LOGIT_SCALE = 1 / 9  # slows the last layer down, for which the rate of convolutions by SGD is too high


class WhitenedCNN(ImageClassifier):
    """A whitening 2x2 convolution, groups of two 3x3 convolutions, a maximum over all pixels, one linear layer.

    The filters of the first layer are computed from training images when a run starts, and stay as they are: what they
    give has unit variance and no correlations, which the layers above need not learn then. They are in the checkpoint
    as all weights. Images may have any size from 9 pixels a side on, so training can begin on `data.resolutions`.

    Args:
        channels: Output channels of each group, one to three groups: each halves the pixels of a side.
        bias_lr_factor: Learning rate of the biases in units of `lr`, above 0; their weight decay is that much smaller.
            They are those of batch norm, which learns no other weights, and of the first layer.
        head_lr_factor: Likewise that of the last layer's weights, on which `muon` takes plain steps.
        **optimization: As in `ImageClassifier`.
    """

    any_resolution = True

    def __init__(
        self,
        *,
        channels: Sequence[int] = (64, 256, 256),
        bias_lr_factor: float = 64.0,
        head_lr_factor: float = 1.0,
        **optimization: Any,
    ) -> None:
        super().__init__(**optimization)
        possible = 1 <= len(channels) <= 3 and all(c >= 1 for c in channels)
        check(possible, "channels", channels, "one to three numbers above 0")
        for name, factor in (("bias_lr_factor", bias_lr_factor), ("head_lr_factor", head_lr_factor)):
            check(0 < factor < float("inf"), name, factor, "a number above 0")
        self.bias_lr_factor, self.head_lr_factor = bias_lr_factor, head_lr_factor
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["whiten"] = whiten = nn.Conv2d(3, FILTERS, kernel_size=2)
        layers["gelu"] = nn.GELU()
        inputs = FILTERS
        for i, outputs in enumerate(channels, start=1):
            layers[f"group{i}"] = _group(inputs, outputs)
            inputs = outputs
        layers["maxpool"] = nn.AdaptiveMaxPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(inputs, NUM_CLASSES, bias=False)
        layers["scale"] = Scale(LOGIT_SCALE)
        for parameter in whiten.parameters():
            nn.init.zeros_(parameter)  # the filters until a run starts
        whiten.weight.requires_grad_(False)
        self.network = nn.Sequential(layers)

    def on_fit_start(self) -> None:
        """Whiten by the first training images, unless the filters came from a checkpoint."""
        filters, data = self.network.get_parameter("whiten.weight"), getattr(self.trainer, "datamodule", None)
        if filters.any():
            return
        if data is None:
            cause = "no data module has the training images that the first layer is computed from"
            raise InputError("model", cause, "give the Trainer a CIFAR10DataModule, or call model.whiten(images)")
        self.whiten(normalize(data.train.images[:IMAGES]))

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Compute the filters of the first layer from normalized images, float32, shape (N, 3, H, W)."""
        self.network.get_parameter("whiten.weight").copy_(whitening_filters(images))

    def parameter_groups(self) -> list[dict[str, Any]]:
        learnt = [parameter for parameter in self.parameters() if parameter.requires_grad]
        filters, head, biases = ([each for each in learnt if each.dim() == dim] for dim in (4, 2, 1))
        return [{"params": filters}, self._plain(head, self.head_lr_factor), self._plain(biases, self.bias_lr_factor)]

    def _plain(self, parameters: list[nn.Parameter], factor: float) -> dict[str, Any]:
        # `orthogonal` is for Muon; other optimizers leave it alone.
        decay = self.weight_decay / factor
        return {"params": parameters, "lr": self.lr * factor, "weight_decay": decay, "orthogonal": False}


def whitening_filters(images: Tensor) -> Tensor:
    """Return filters that whiten patches of 2x2 pixels, and their negatives: shape (24, 3, 2, 2).

    They are the eigenvectors of the patches' covariance, each over the square root of its eigenvalue (Page 2019).
    """
    patches = F.unfold(images, kernel_size=2).transpose(1, 2).flatten(0, 1)  # (N * 31 * 31, 12)
    eigenvalues, eigenvectors = torch.linalg.eigh(patches.T.cov())
    # The least eigenvalues are of noise, which is not to be blown up.
    filters = (eigenvectors / (eigenvalues + 5e-4).sqrt()).T.reshape(-1, 3, 2, 2)
    return torch.cat([filters, -filters])


def _group(inputs: int, outputs: int) -> nn.Sequential:
    # Pooled before it is normalized, when a quarter is left.
    first = [_conv(inputs, outputs), nn.MaxPool2d(2), _batch_norm(outputs), nn.GELU()]
    second = [_conv(outputs, outputs), _batch_norm(outputs), nn.GELU()]
    return nn.Sequential(
        OrderedDict(zip(("conv1", "pool", "bn1", "gelu1", "conv2", "bn2", "gelu2"), first + second, strict=True))
    )


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding="same", bias=False)
    nn.init.dirac_(conv.weight[:inputs])  # begins by passing on what comes in
    return conv


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # A run has few steps: running statistics must follow within some.
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)  # stays 1: the next convolution scales
    return norm


class Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        return input * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:.3g}"
