"""The same seed gives the same bits; a resumed run ends where an uninterrupted one does; no double precision."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks.epoch_seed import EpochSeed
from cifar_lightning.callbacks.history import History
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import CNN, MLP, ImageClassifier, WhitenedCNN
from cifar_lightning.runs import metrics_csv
from cifar_lightning.utils.seeding import derive
from tests.conftest import SMALL, Fit, curves, run_folder
from tests.faults.processes import start
from tests.models.conftest import trainer

RECIPES = {
    "mlp": "--model=MLP --data.augment=flip-shift",
    "cnn": "--model=CNN --model.channels=[8,16] --data.augment=flip-shift",
    "whitened_cnn": "--model=WhitenedCNN --model.channels=[8,16] --model.optimizer=muon --model.lr=0.1 "
    "--model.label_smoothing=0.1 --data.augment=alternating-flip --data.resolutions=[16,24] "
    '--trainer.callbacks=[{"class_path":"EMAWeightAveraging","init_args":{"decay":0.8}}]',
}
MODELS = pytest.mark.parametrize("model", RECIPES.values(), ids=RECIPES)
FLAGS = [*SMALL, "--data.train_size=501", "--model.schedule=cosine"]


def weights(run: Path) -> Tensor:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return torch.cat([value.flatten() for value in content["state_dict"].values()])


@MODELS
def test_one_seed_decides_everything(model: str, fit: Fit, tmp_path: Path) -> None:
    flags = [*model.split(), *FLAGS, "--trainer.max_epochs=2"]
    first = weights(fit(tmp_path / "first", flags))
    assert not torch.equal(weights(fit(tmp_path / "other", [*flags, "--seed_everything=1"])), first)
    # Again, and whoever prepares the batches; in a process of its own, because Python would collect the loader in some
    # later test, and PyTorch then waits five seconds for each of its workers.
    status, output = start(tmp_path, ["fit", "--logs=again", *flags, "--data.num_workers=2"]).run()
    assert status == 0, output
    assert torch.equal(weights(run_folder(tmp_path / "again")), first)


@MODELS
def test_a_resumed_run_ends_the_same(model: str, fit: Fit, tmp_path: Path) -> None:
    flags = [*model.split(), *FLAGS, "--model.schedule=constant"]
    whole = fit(tmp_path / "whole", [*flags, "--trainer.max_epochs=3"])
    part = fit(tmp_path / "part", [*flags, "--trainer.max_epochs=2"])
    assert main(["fit", *flags, "--trainer.max_epochs=3", f"--resume={part}"]) == 0
    assert torch.equal(weights(part), weights(whole))
    assert curves(part) == curves(whole)
    assert len(curves(part)) == 4


def test_a_run_resumes_by_its_checkpoint_alone(fit: Fit, tmp_path: Path) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--trainer.max_epochs=1"])
    before = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").unlink()
    assert main(["fit", f"--resume={run}", f"--logs={tmp_path}"]) == 2
    assert main(["fit", f"--resume={run}", "--trainer.max_epochs=2"]) == 0
    before |= {"logs": "logs"}
    before["trainer"]["max_epochs"] = 2
    before["model"]["class_path"] = "cifar_lightning.models.mlp.MLP"
    assert yaml.safe_load((run / "config.yaml").read_text()) == before
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert len((run / "metrics.csv").read_text().splitlines()) == 3


REFUSED = {
    "--seed_everything=5": "seed_everything: 5, but the run to resume has 0",
    "--data.batch_size=50": "data.batch_size: 50, but the run to resume has 100; leave it out (`fit --resume ",
    "--model=CNN": "model.class_path: 'cifar_lightning.models.cnn.CNN', but the run to resume has ",
    "--trainer.max_epochs=1": "trainer.max_epochs: 1, but",
    "--trainer.max_epochs=3": "the cosine schedule was laid out for 2",
}


def test_a_run_resumes_only_as_itself(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--model.schedule=cosine", "--trainer.max_epochs=2"])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for flag, cause in REFUSED.items():
        assert main(["fit", f"--resume={run}", flag]) == 2
        assert cause in capsys.readouterr().err
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_derived_seeds_are_pinned_and_apart() -> None:
    assert derive(0, "order", 0) == 1829853113658518448
    seeds = {derive(s, purpose, i) for s in range(20) for purpose in ("order", "epoch") for i in range(50)}
    assert len(seeds) == 20 * 2 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def dtypes(thing: Any) -> Iterator[torch.dtype]:
    if isinstance(thing, Tensor):
        yield thing.dtype
    elif isinstance(thing, dict | list | tuple):
        for value in thing.values() if isinstance(thing, dict) else thing:
            yield from dtypes(value)


class Walk(Callback):
    """Collects the types of all tensors in reach after each step."""

    def __init__(self) -> None:
        self.seen: set[torch.dtype] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        states = [optimizer.state_dict() for optimizer in trainer.optimizers]
        modules = [list(pl_module.parameters()), list(pl_module.buffers()), pl_module.state_dict()]
        metrics = [metric.metric_state for metric in (*pl_module.metrics.values(), pl_module.confusion_matrix)]
        self.seen |= set(dtypes([states, modules, metrics, dict(trainer.callback_metrics), outputs, batch]))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.seen |= set(dtypes(batch))


@pytest.mark.parametrize("model", [MLP(width=16), CNN(channels=[4]), WhitenedCNN(channels=[4])], ids=RECIPES)
def test_no_double_precision_reaches_a_device(model: ImageClassifier, tmp_path: Path) -> None:
    """Apple's GPUs have none."""
    run = trainer(1, EpochSeed(), walk := Walk(), History())
    run.fit(model, CIFAR10DataModule(source="synthetic", train_size=200, val_size=100, augment="flip-shift"))
    run.save_checkpoint(tmp_path / "all.ckpt")
    assert torch.float32 in walk.seen
    saved = dtypes(torch.load(tmp_path / "all.ckpt", weights_only=True))
    assert walk.seen.union(saved) <= {torch.float32, torch.int64, torch.uint8}  # the last: a generator's state


@pytest.mark.slow
def test_the_cnn_beats_the_mlp_on_the_stand_in(fit: Fit, tmp_path: Path) -> None:
    def best(name: str, flags: list[str]) -> float:
        data = ["--data.source=synthetic", "--data.train_size=20000", "--data.val_size=2000"]
        run = fit(tmp_path / name, [*flags, *data, "--trainer.max_epochs=3"])
        return max(row["val/acc"] for row in metrics_csv.read(run / "metrics.csv"))

    mlp = best("mlp", ["--model=MLP", "--model.dropout=0"])
    cnn = best("cnn", ["--model=CNN", "--model.channels=[16,32]", "--model.dropout=0.1"])
    assert 0.2 < mlp < cnn - 0.15
