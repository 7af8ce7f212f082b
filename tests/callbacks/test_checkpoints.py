"""A run that resumes in another environment reports it."""

from pathlib import Path

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import load
from tests.conftest import TINY


def test_other_threads_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--name=mlp", *TINY, "--trainer.accelerator=cpu", f"--logs={tmp_path / 'my logs'}"]
    assert main(["fit", *flags, "--trainer.max_epochs=1"]) == 0
    assert capsys.readouterr().out.endswith(f"\n  tensorboard --logdir '{tmp_path / 'my logs'}'\n")
    run = tmp_path / "my logs/mlp-synthetic/version_0"
    # The key in checkpoints of earlier versions, and what records take from there.
    assert load(run / "checkpoints/last.ckpt")["callbacks"]["Conditions"]["threads"] == 1
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs=2"]) == 0
    assert capsys.readouterr().err == ""
    torch.set_num_threads(2)
    try:
        assert main(["fit", "--resume", str(run), "--trainer.max_epochs=3", "--trainer.gradient_clip_val=1"]) == 0
    finally:
        torch.set_num_threads(1)
    output = capsys.readouterr()
    assert output.err == "resumes in another environment, not bit for bit: threads 2 (was 1)\n"
    assert "but for trainer.gradient_clip_val 1" in output.out, output.out
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs=4"]) == 0
    kept = load(run / "checkpoints/last.ckpt")["callbacks"]["Conditions"]
    assert (kept["threads"], kept["moved"]) == (1, "threads 2 (was 1); threads 1 (was 2)")
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs=5"]) == 0
    assert load(run / "checkpoints/last.ckpt")["callbacks"]["Conditions"] == kept
