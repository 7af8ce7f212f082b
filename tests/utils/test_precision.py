"""The precision that a run takes where none is asked for."""

import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from torch import Tensor

from cifar_lightning.__main__ import main
from cifar_lightning.models import ImageClassifier
from cifar_lightning.utils.precision import best_precision
from tests.conftest import SMALL, Fit

SHORT = ["--model=MLP", "--model.width=4", *SMALL, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]

Hardware = Callable[..., None]


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Hardware:
    """Pretends to run on what is named: cuda, its bf16, mps, and a CPU's avx512_bf16 or amx_bf16."""

    def pretend(*there: str) -> None:
        assert set(there) <= {"cuda", "bf16", "mps", "avx512_bf16", "amx_bf16"}
        monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: "cuda" in there))
        monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: "mps" in there))
        # Where there is none an emulation is, for those who ask for one.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or "bf16" in there
        )
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(["avx512_f", *there], True))

    return pretend


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names")
def test_pytorch_tells_the_capabilities_that_decide() -> None:
    assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities())


BF16, FLOAT32 = "bf16-mixed", "32-true"

# Accelerators asked for, what is there, the precision, and what its reason names.
PRECISIONS = [
    ("auto cpu", "", FLOAT32, "CPU"),
    ("auto cpu", "avx512_bf16", BF16, "CPU"),
    ("auto cpu", "amx_bf16", BF16, "CPU"),
    ("auto gpu cuda", "cuda bf16", BF16, "GPU"),
    # A GPU without: what the CPU can does not matter.
    ("auto gpu cuda", "cuda amx_bf16", FLOAT32, "GPU"),
    ("auto gpu mps", "mps amx_bf16", FLOAT32, "Apple"),
    # The CPU where it is asked for: what the GPU can does not matter.
    ("cpu", "cuda bf16", FLOAT32, "CPU"),
    ("cpu", "cuda amx_bf16", BF16, "CPU"),
    ("cpu", "mps avx512_bf16", BF16, "CPU"),
    ("mps", "mps cuda bf16", FLOAT32, "Apple"),
]


@pytest.mark.parametrize(("accelerators", "there", "name", "reason"), PRECISIONS)
def test_precision(accelerators: str, there: str, name: str, reason: str, hardware: Hardware) -> None:
    hardware(*there.split())
    for accelerator in accelerators.split():
        precision, why = best_precision(accelerator)
        assert precision == name
        assert reason in why


def test_without_the_list_of_capabilities_the_precision_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # PyTorch 2.10
    assert best_precision("cpu")[0] == FLOAT32


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize(("there", "asked"), [("amx_bf16", None), ("", None), ("amx_bf16", FLOAT32), ("", BF16)])
def test_a_run_takes_the_best_precision_and_says_so_unless_another_is_asked_for(
    there: str,
    asked: str | None,
    hardware: Hardware,
    fit: Fit,
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def noting(self: ImageClassifier, images: Tensor) -> Tensor:
        computed_in.add(self.network(images).dtype)
        return forward(self, images)

    computed_in, forward = set[torch.dtype](), ImageClassifier.forward
    monkeypatch.setattr(ImageClassifier, "forward", noting)
    hardware(*there.split())
    best, why = best_precision("cpu")
    dtype = {BF16: torch.bfloat16, FLOAT32: torch.float32}[asked or best]
    run = fit(empty_folder, [*SHORT, *([f"--trainer.precision={asked}"] if asked else [])])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision")]
    assert lines == [f"precision {asked}" if asked else f"precision {best}: {why}"]
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == (asked or best)
    assert computed_in == {dtype}
    # A checkpoint is tested as it was trained, on whatever hardware.
    computed_in.clear()
    hardware(*([] if there else ["amx_bf16"]))
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    assert "\nprecision" not in capsys.readouterr().out
    assert computed_in == {dtype}
