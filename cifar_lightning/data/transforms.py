"""Augmentation of a batch's bytes and normalization, as plain functions on the device."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

# Mean and standard deviation of each channel over the 50,000 training images, in units of one pixel's 0 to 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def normalize(images: Tensor) -> Tensor:
    """Return bytes (B, 3, H, W) as float32 with zero mean and unit variance per channel; the memory format stays."""
    scale, shift = _scale_and_shift(images.device)
    return images.float().mul_(scale).sub_(shift)


def denormalize(images: Tensor) -> Tensor:
    """Invert `normalize`, to show what a network saw: float32, shape (B, 3, H, W), 0 to 1."""
    scale, shift = _scale_and_shift(images.device)
    return ((images + shift) / (255 * scale)).clamp_(0, 1)


@functools.cache
def _scale_and_shift(device: torch.device) -> tuple[Tensor, Tensor]:
    # Made once: making them took more than half of a call, and on a GPU each time a copy to wait for.
    with torch.inference_mode(False):  # they outlive an evaluation that asks for them first
        mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
        return (1 / (255 * std)).to(device), (mean / std).to(device)


def flip_and_shift(
    images: Tensor, start: int, size: int, seed: int, max_shift: int = 4, epoch: int | None = None
) -> Tensor:
    """Flip each image (B, C, H, W) with probability 1/2, then shift it by up to `max_shift` pixels each way.

    The images are those of a batch of `size` from `start` on: what an image gets depends on the batch's seed and on its
    place there, not on the device, nor on how many processes share the batch. With an `epoch` (from 0) nothing is drawn
    for the flips: they alternate.
    """
    generator = torch.Generator().manual_seed(seed)
    flips = torch.randint(2, (1, size), generator=generator)
    shifts = torch.randint(-max_shift, max_shift + 1, (2, size), generator=generator)
    flip, down, right = torch.cat([flips, shifts])[:, start : start + len(images)].to(images.device)
    return crop(images, flip.bool() if epoch is None else alternating_flips(images, epoch), down, right)


def alternating_flips(images: Tensor, epoch: int) -> Tensor:
    """Return which bytes (B, C, H, W) to flip: half of all images in one epoch, the other half in the next; bool, (B,).

    So two epochs show each image once either way; with draws, one in two images would be shown the same way twice
    (Jordan 2024, section 3.6). An image's half depends on its bytes alone: whether their sum is odd.
    """
    return (images.sum((1, 2, 3)) + epoch) % 2 == 1


def resize(images: Tensor, side: int) -> Tensor:
    """Return float images (B, C, H, W) as (B, C, `side`, `side`), interpolated between pixels."""
    return F.interpolate(images, (side, side), mode="bilinear")


def crop(images: Tensor, flip: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Mirror images (B, C, H, W) where `flip`, then move the frame over each: one gather, into channels_last format.

    `flip` is bool, `down` and `right` are pixels (int64, less than H and W in size), each of shape (B,).
    """
    height, width = images.shape[-2:]
    rows = _reflect(torch.arange(height, device=images.device) + down[:, None], height - 1)  # (B, H)
    columns = _reflect(torch.arange(width, device=images.device) + right[:, None], width - 1)  # (B, W)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    image = torch.arange(len(images), device=images.device)
    moved = images.permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return moved.permute(0, 3, 1, 2)


def _reflect(index: Tensor, last: int) -> Tensor:
    # What lies outside 0 to last is mirrored there: no black edge tells the network about the augmentation.
    return last - (last - index.abs()).abs()
