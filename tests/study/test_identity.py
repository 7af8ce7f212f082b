"""The identity of a run: what changes no metric changes no address, what does, does; and the bits behind the recipe."""

import platform
from pathlib import Path

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.study import identity
from cifar_lightning.study.identity import content, parse
from cifar_lightning.utils.environment import processor
from tests.conftest import CONFIGS, run_folder

CNN = f"--config={CONFIGS / 'cnn.yaml'}"


def address(*flags: str, seed: int = 0, source: str = "cifar10") -> str:
    return identity.address(content(parse([CNN, *flags])), seed, source)


def test_what_changes_no_metric_changes_no_address() -> None:
    for flags in (
        *("--data.root=elsewhere", "--data.num_workers=2", "--data.mirrors=[https://example.org]"),
        *("--trainer.accelerator=cpu", "--model.dropout=0.50", "--trainer.gradient_clip_val=null"),
        "--data.train_clean_size=5000",  # the default, which the file leaves out
        *("--trainer.limit_train_batches=400", "--trainer.limit_train_batches=1000"),
        *("--trainer.limit_train_batches=1.0", "--logs=elsewhere", "--name=other"),
        "--seed_everything=7",  # of the base configuration: the seed of a run stands for itself
    ):
        assert address(flags) == address(), flags


def test_what_changes_a_metric_changes_the_address() -> None:
    flags = (
        *("--model.dropout=0.4", "--model.batch_norm=false", "--model.channels=[64]", "--data.batch_size=10"),
        *("--data.train_size=1000", "--data.augment=flip-shift", "--trainer.max_epochs=49"),
        *("--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1.0", "--trainer.limit_train_batches=399"),
        *("--trainer.limit_val_batches=1", "--trainer.limit_val_batches=1.0"),  # one batch is not all of them
        "--trainer.callbacks=DeviceStatsMonitor",
    )
    assert len({address(), *map(address, flags)}) == 1 + len(flags)


@pytest.mark.parametrize(
    ("flags", "others"),
    [
        (["--model.dropout=0"], ["--model.dropout=0.0"]),
        (["--trainer.limit_train_batches=0.1"], ["--trainer.limit_train_batches=40"]),
        (["--trainer.limit_train_batches=4.0"], ["--trainer.limit_train_batches=4"]),
        (["--model=CNN", "--model.lr=0.1"], ["--model=cifar_lightning.models.cnn.CNN", "--model.lr=1e-1"]),
    ],
)
def test_the_same_however_it_is_written(flags: list[str], others: list[str]) -> None:
    assert address(*flags) == address(*others) != address()


def test_seed_source_and_recipe_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {address(), address(seed=1), address(source="synthetic")}
    monkeypatch.setattr(identity, "RECIPE", identity.RECIPE + 1)
    assert len(found | {address()}) == 4


def test_settings_that_are_added_orphan_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before, defaults, settings = address(), identity._defaults(), content(parse([CNN]))
    # By another version of Lightning, and a parameter of ours that changes nothing.
    monkeypatch.setattr(identity, "_defaults", lambda: {**defaults, "trainer.new": 3})
    assert identity.address(content({**parse([CNN]), "trainer.new": 3}), 0, "cifar10") == before
    monkeypatch.setattr(identity, "ADDED", {**identity.ADDED, "model.mixup": 0.0})
    assert identity.address({**settings, "model.mixup": 0.0}, 0, "cifar10") == before
    assert identity.address({**settings, "model.mixup": 0.1}, 0, "cifar10") != before


@pytest.mark.parametrize("wrong", ["--data.batch_size=0", "--data.val_size=60000", "--model.dropout=7"])
def test_what_fit_will_refuse_has_an_address(wrong: str) -> None:
    assert address(wrong, "--trainer.limit_train_batches=3") != address()


# The loss on validation images after three steps, in single precision, on one thread. A change here means that old runs
# are no longer what a study would make now: bump identity.RECIPE, and pin what comes instead.
TINY = [
    *("--data.source=synthetic", "--data.train_size=300", "--data.val_size=100", "--data.train_clean_size=0"),
    *("--trainer.max_epochs=1", "--trainer.precision=32-true", "--trainer.accelerator=cpu"),
]
SMALL_CNN = ("cnn", "--model.channels=[8,16]")
SMALL_SPRINT = ("sprint", "--model.channels=[8,16]", "--data.batch_size=100", "--data.resolutions=[24]")
GOLDEN = {
    ("mlp", "--model.width=64"): "0x1.4a8c020161ffdp+1",
    SMALL_CNN: "0x1.274a35ae37b65p+1",
    (*SMALL_CNN, "--data.augment=flip-shift", "--model.schedule=one-cycle"): "0x1.26d2e514c22eep+1",
    SMALL_SPRINT: "0x1.28312bf1f6520p+1",
    (
        *SMALL_SPRINT,
        *("--model.optimizer=sgd", "--model.lr=0.375", "--model.bias_lr_factor=64", "--model.head_lr_factor=1"),
        *("--model.momentum=0.85", "--model.weight_decay=5.32e-3", "--trainer.callbacks.decay=0.95"),
    ): "0x1.28caa326e1156p+1",
}
# The libraries compute with what the processor has, in another order then. Seen with fewer vector units of the same one
# (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA): 4e-5 at most. So a change as small as 1e-4 in a mean of the colours is seen
# on the reference alone; another order of the batches, by far, everywhere.
REFERENCE = ("AMD EPYC (avx2, avx512f, avx512_bf16)", "2.15")
ELSEWHERE = 2e-4


@pytest.mark.parametrize(("name", "flags"), [(each[0], each[1:]) for each in GOLDEN])
def test_the_bits_after_three_steps(name: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    assert main(["fit", f"--config={CONFIGS / name}.yaml", *TINY, *flags, f"--logs={tmp_path}"]) == 0
    (row,) = metrics_csv.read(RunFolder(run_folder(tmp_path)).metrics)
    pinned = float.fromhex(GOLDEN[name, *flags])
    if (processor(), torch.__version__[:4]) == REFERENCE and platform.system() == "Linux":
        assert row["val/loss"].hex() == pinned.hex()
    assert row["val/loss"] == pytest.approx(pinned, rel=ELSEWHERE)
