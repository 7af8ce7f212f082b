"""The same seed gives the same bits; a resumed run ends where an uninterrupted one does; no double precision."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks import EpochSeed, History
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import CNN, MLP, ImageClassifier
from cifar_lightning.utils.seeding import derive
from tests.conftest import SMALL, Fit

SMALL_CNN = ["--model=CNN", "--model.channels=[8,16]"]
FLAGS = ["--data.augment=flip-shift", *SMALL, "--data.train_size=501", "--model.schedule=cosine"]


def weights(run: Path) -> dict[str, Tensor]:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    state: dict[str, Tensor] = content["state_dict"]
    return state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("model", [["--model=MLP"], SMALL_CNN], ids=["mlp", "cnn"])
def test_one_seed_decides_everything(model: list[str], fit: Fit, tmp_path: Path) -> None:
    flags = [*model, *FLAGS, "--trainer.max_epochs=2"]
    first, again, workers, other = (
        fit(tmp_path / name, [*flags, *more])
        for name, more in {
            "first": [],
            "again": [],
            "workers": ["--data.num_workers=2"],
            "other": ["--seed_everything=1"],
        }.items()
    )
    assert same(weights(first), weights(again))
    assert same(weights(first), weights(workers))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("model", [["--model=MLP"], SMALL_CNN], ids=["mlp", "cnn"])
def test_a_resumed_run_ends_the_same(model: list[str], fit: Fit, tmp_path: Path) -> None:
    def rows(run: Path) -> list[str]:
        return [line.rpartition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]

    flags = [*model, *FLAGS, "--model.schedule=constant"]
    whole = fit(tmp_path / "whole", [*flags, "--trainer.max_epochs=3"])
    part = fit(tmp_path / "part", [*flags, "--trainer.max_epochs=2"])
    last = f"--ckpt_path={part / 'checkpoints/last.ckpt'}"
    rest = fit(tmp_path / "part", [*flags, "--trainer.max_epochs=3", last])
    assert rest == part
    assert same(weights(rest), weights(whole))
    assert rows(rest) == rows(whole)
    assert len(rows(whole)) == 4


def test_a_run_goes_on_by_its_checkpoint_alone(fit: Fit, tmp_path: Path) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--trainer.max_epochs=1"])
    before = yaml.safe_load((run / "config.yaml").read_text())
    assert fit(tmp_path, [f"--ckpt_path={run / 'checkpoints/best.ckpt'}", "--trainer.max_epochs=2"]) == run
    before["trainer"]["max_epochs"] = 2
    before["model"]["class_path"] = "cifar_lightning.models.mlp.MLP"
    assert yaml.safe_load((run / "config.yaml").read_text()) == before
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert len((run / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.lr=0.1"], "model.lr: 0.1, but the run to resume has 0.001"),
        (["--seed_everything=5"], "seed_everything: 5, but the run to resume has 0"),
        (["--data.batch_size=50"], "data.batch_size: 50, but the run to resume has 100"),
        (["--model=CNN"], "model"),
        (["--trainer.max_epochs=2"], "trainer.max_epochs: 2, but"),
        (["--trainer.max_epochs=3"], "the cosine schedule was laid out for 2"),
    ],
)
def test_a_run_goes_on_only_as_itself(
    flags: list[str], words: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--model.schedule=cosine", "--trainer.max_epochs=2"])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["fit", f"--ckpt_path={run / 'checkpoints/last.ckpt'}", *flags]) == 2
    assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_without_validation_the_last_epoch_is_still_kept_each_time(fit: Fit, tmp_path: Path) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--data.val_size=0", "--trainer.max_epochs=2"])
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 2
    assert content["epoch"] == 1  # saved at the end of the second epoch, not after the run
    assert len(content["callbacks"]["History"]["rows"]) == 2


def test_derived_seeds_are_pinned_and_apart() -> None:
    assert derive(0, "order", 0) == 1829853113658518448
    seeds = {derive(s, purpose, i) for s in range(20) for purpose in ("order", "epoch") for i in range(50)}
    assert len(seeds) == 20 * 2 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def tensors(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from tensors(value)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from tensors(value)


@pytest.mark.parametrize("model", [MLP(width=16), CNN(channels=[4])], ids=["mlp", "cnn"])
def test_no_double_precision_reaches_a_device(model: ImageClassifier, tmp_path: Path) -> None:
    """Apple's GPUs have none."""
    seen: list[torch.dtype] = []

    class Walk(EpochSeed):
        def on_train_batch_end(
            self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            states = [optimizer.state_dict() for optimizer in trainer.optimizers]
            modules = [list(pl_module.parameters()), list(pl_module.buffers()), pl_module.state_dict()]
            metrics = [metric.metric_state for metric in pl_module.metrics.values()]
            values = [dict(trainer.callback_metrics), outputs, batch, pl_module.confusion_matrix.metric_state]
            seen.extend(tensor.dtype for tensor in tensors([states, modules, metrics, values]))

        def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            seen.extend(tensor.dtype for tensor in tensors(batch))

    data = CIFAR10DataModule(source="synthetic", train_size=200, val_size=100, augment="flip-shift")
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[Walk(), History()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "all.ckpt")
    seen.extend(tensor.dtype for tensor in tensors(torch.load(tmp_path / "all.ckpt", weights_only=True)))
    assert torch.float32 in seen
    assert torch.float64 not in seen
    assert set(seen) <= {torch.float32, torch.int64, torch.uint8}  # the last: a generator's state


@pytest.mark.slow
def test_the_cnn_beats_the_mlp_on_the_stand_in(fit: Fit, tmp_path: Path) -> None:
    def best(name: str, flags: list[str]) -> float:
        data = ["--data.source=synthetic", "--data.train_size=20000", "--data.val_size=2000"]
        run = fit(tmp_path / name, [*flags, *data, "--trainer.max_epochs=3"])
        with (run / "metrics.csv").open() as file:
            return max(float(row["val/acc"]) for row in csv.DictReader(file))

    mlp = best("mlp", ["--model=MLP", "--model.dropout=0"])
    cnn = best("cnn", ["--model=CNN", "--model.channels=[16,32]", "--model.dropout=0.1"])
    assert 0.2 < mlp < cnn - 0.15
