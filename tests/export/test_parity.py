"""Parity is exact about classes, generous to ties alone, and names what differs."""

from pathlib import Path

import numpy as np
import pytest

from cifar_lightning.__main__ import main
from cifar_lightning.errors import RunError
from cifar_lightning.export import parity
from cifar_lightning.export.formats import Pixels, Probabilities

CLASSES = "abcdefghij"
IMAGES = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)


def probabilities(first: float, second: float) -> Probabilities:
    """Those of 20 images, of which the third has these for `b` and `c`."""
    rows = np.full((20, 10), 0.02, np.float32)
    rows[:, 0] = 0.82
    rows[2, :3] = 0.0, first, second
    return rows


def compare(found: Probabilities, expected: Probabilities, *, only: int | None = None) -> parity.Parity:
    """Compare what is found, in batches of `only` that size (else in all), with what is expected."""

    def predict(images: Pixels) -> Probabilities:
        wrong = only is None or len(images) == only
        return (found if wrong else expected)[images.ravel()]

    return parity.compare("a.onnx", predict, IMAGES, expected, CLASSES)


def test_a_small_difference_is_measured() -> None:
    expected = probabilities(0.5, 0.4)
    found = compare(expected + np.float32(3e-6), expected, only=7)
    assert found.largest == pytest.approx(3e-6, rel=0.05)
    assert found.ties == []
    assert {*found.ms} == {1, 7, 500}


def test_a_class_may_change_only_between_equals() -> None:
    found = compare(probabilities(0.4, 0.4 + 6e-7), probabilities(0.4 + 6e-7, 0.4))
    assert found.ties == ["test/0002 (b or c)"]
    with pytest.raises(RunError, match=r"a\.onnx: in batches of 1 it predicts test/0002 otherwise than the checkpoint"):
        compare(probabilities(0.4, 0.4 + 3e-6), probabilities(0.4 + 3e-6, 0.4))


@pytest.mark.parametrize("size", [1, 7, 20])
def test_a_large_difference_in_any_batch_is_refused(size: int) -> None:
    with pytest.raises(RunError, match=rf"in batches of {500 if size == 20 else size} it predicts test/00"):
        compare(probabilities(0.5 + 2e-5, 0.4), probabilities(0.5, 0.4), only=size)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_all_images_of_the_test_set(
    model: str, runs: dict[str, Path], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"--ckpt_path={runs[model]}", f"--output={empty_folder / 'a.onnx'}"]) == 0
    assert "all 10,000 test images" in capsys.readouterr().out


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(RunError, match="test/0000, test/0001, test/0002, test/0003, test/0004 and 15 more otherwise"):
        compare(np.full((20, 10), np.nan, np.float32), probabilities(0.5, 0.4))
    with pytest.raises(RunError, match="otherwise than the checkpoint"):
        compare(np.full((20, 10), np.nan, np.float32), np.full((20, 10), np.nan, np.float32))
