from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.transforms import Compose, Normalize, ToTensor

from cifar_lightning.data import cifar10, transforms
from cifar_lightning.data.transforms import (
    MEAN,
    STD,
    alternating_flips,
    crop,
    denormalize,
    flip_and_shift,
    normalize,
    resize,
)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def slow_crop(image: Tensor, flip: bool, down: int, right: int) -> Tensor:
    """One image, by the book: mirror, pad by reflection, cut out."""
    pixels = image.numpy()[:, :, ::-1] if flip else image.numpy()
    _, h, w = pixels.shape
    padded = np.pad(pixels, ((0, 0), (h - 1, h - 1), (w - 1, w - 1)), mode="reflect")
    top, left = h - 1 + down, w - 1 + right
    return torch.from_numpy(padded[:, top : top + h, left : left + w].copy())


def test_normalize_against_torchvision() -> None:
    images = noise(20, 3, 32, 32)
    images[0], images[1] = 0, 255
    slow = Compose([ToTensor(), Normalize(MEAN, STD)])
    expected = torch.stack([slow(image.permute(1, 2, 0).numpy()) for image in images])
    for layout in (torch.contiguous_format, torch.channels_last):
        result = normalize(images.to(memory_format=layout))
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=layout)
        assert (result - expected).abs().max() <= 1e-6


@pytest.mark.cifar10
def test_mean_and_deviation_are_those_of_the_real_training_set(cifar10_root: Path) -> None:
    images = cifar10.load(cifar10_root, train=True).images.numpy()
    values = np.arange(256) / 255
    for channel in range(3):
        weights = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean = (weights * values).sum()
        std = np.sqrt((weights * (values - mean) ** 2).sum())
        assert (round(float(mean), 4), round(float(std), 4)) == (MEAN[channel], STD[channel])


def test_denormalize_is_the_inverse() -> None:
    images = noise(8, 3, 32, 32)
    back = denormalize(normalize(images))
    assert back.dtype == torch.float32
    assert (back - images / 255).abs().max() <= 1e-6
    assert denormalize(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1)).unique().tolist() == [0, 1]


def augment(images: Tensor, max_shift: int = 4, epoch: int | None = None) -> Tensor:
    return flip_and_shift(images, 0, len(images), 0, max_shift, epoch)


@pytest.mark.parametrize("change", [normalize, augment, denormalize])
def test_the_input_stays_and_so_does_the_shape(change: Callable[[Tensor], Tensor]) -> None:
    for count in (64, 0):
        images = noise(count, 3, 20, 32)
        before = images.clone()
        assert change(images).shape == images.shape
        assert torch.equal(images, before)


@pytest.mark.parametrize(("height", "width", "reach"), [(32, 32, 4), (5, 9, 4), (17, 6, 5), (7, 7, 6), (1, 3, 0)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_crop_against_a_slow_one(height: int, width: int, reach: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    images = noise(200, 3, height, width).to(dtype)
    flip = torch.randint(0, 2, (200,), generator=generator).bool()
    down, right = (torch.randint(-reach, reach + 1, (200,), generator=generator) for _ in range(2))
    flip[0], down[0], right[0] = False, 0, 0
    result = crop(images, flip, down, right)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result[0], images[0])
    for i, image in enumerate(images):
        assert torch.equal(result[i], slow_crop(image, bool(flip[i]), int(down[i]), int(right[i]))), i


def test_every_image_draws_for_itself_and_every_draw_is_as_likely() -> None:
    # With every pixel different, each of the 2 * 9 * 9 outcomes can be told from all others.
    image, each = torch.arange(121, dtype=torch.uint8).view(1, 11, 11), 100
    outcomes = [(flip, down, right) for flip in (False, True) for down in range(-4, 5) for right in range(-4, 5)]
    table = {slow_crop(image, *outcome).numpy().tobytes(): i for i, outcome in enumerate(outcomes)}
    assert len(table) == 162
    result = augment(image.expand(162 * each, 1, 11, 11)).contiguous()
    found = torch.tensor([table[row.numpy().tobytes()] for row in result])
    # Binomial: 6 standard deviations are 6 * sqrt(100 * 161/162) = 59.8 for an outcome, 382 for the flips.
    assert (torch.bincount(found, minlength=162) - each).abs().max() < 60
    assert abs(int((found >= 81).sum()) - 81 * each) < 382


def test_what_an_image_gets_depends_on_its_batch_and_its_place_there_alone() -> None:
    images = noise(50, 3, 32, 32)
    torch.manual_seed(1)
    whole = augment(images)
    torch.manual_seed(2)
    parts = [flip_and_shift(part, start, 50, seed=0) for part, start in ((images[:17], 0), (images[17:], 17))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(flip_and_shift(images, 0, 50, seed=1), whole)


class NoFloat64(TorchFunctionMode):
    """Fails at the first call that makes a float64 tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        assert not (isinstance(out, Tensor) and out.dtype == torch.float64), func
        return out


def test_no_float64_on_the_way() -> None:
    # Apple's GPUs have none.
    transforms._scale_and_shift.cache_clear()
    with NoFloat64():
        denormalize(normalize(augment(noise(4, 3, 32, 32))))
        with pytest.raises(AssertionError):
            torch.ones(1).double()


def test_flips_alternate_by_the_image_alone() -> None:
    images = noise(1_000, 3, 8, 8)
    first, second, third = (alternating_flips(images, epoch) for epoch in range(3))
    assert 450 < first.sum() < 550
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)
    order = torch.randperm(1_000)
    assert torch.equal(alternating_flips(images[order], 0), first[order])
    assert first[0] == bool(sum(images[0].flatten().tolist()) % 2)
    for epoch, flips in enumerate((first, second)):
        assert torch.equal(augment(images, 0, epoch), torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images))


def test_no_image_is_shifted_further_than_asked() -> None:
    images = torch.arange(32, dtype=torch.uint8).expand(500, 1, 32, 32).contiguous()
    shifts = augment(images, 2, 0)[:, 0, 16, 16].int() - 16  # not flipped, for their sum is even
    assert sorted(set(shifts.tolist())) == [-2, -1, 0, 1, 2]


def test_resize_keeps_the_mean_and_the_place() -> None:
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(1, 3, 32, 32)
    small = resize(ramp, 24)
    assert small.shape == (1, 3, 24, 24)
    expected = (torch.arange(24) + 0.5) * 32 / 24 - 0.5  # centres of the new pixels, on the old scale
    torch.testing.assert_close(small[0, 0, 0], expected)
