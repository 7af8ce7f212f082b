"""Every shipped configuration is complete, documents its command and cost, and runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cifar_lightning.__main__ import main
from cifar_lightning.cli.config_files import flat
from cifar_lightning.runs.layout import EVENTS
from tests.conftest import CONFIGS, Fit, curves

STUDIES = {"study", "study_quick"}  # see tests/study
OVERLAYS = {  # and all that each changes
    "cpu": {"trainer.accelerator": "cpu"},
    "mps": {"trainer.accelerator": "mps"},
    "no_batch_norm": {"model.batch_norm": False},
    "no_dropout": {"model.dropout": 0.0},
}
RUNNABLE = ["cnn", "mlp", "quick", "sprint", "speedrun", "cpu", "no_batch_norm", "no_dropout"]
FEW = ["--data.source=synthetic", "--trainer.max_epochs=1"]
FEW += ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]
SMALLER = {"speedrun": ["--model.channels=[8,8]", "--data.batch_size=100"]}  # whose two batches take half a minute


def test_the_configurations_are_the_documented_ones() -> None:
    files = {file.stem: file.read_text() for file in CONFIGS.glob("*.yaml")}
    assert set(files) >= {*STUDIES, *OVERLAYS, *RUNNABLE}
    assert {name for name, text in files.items() if "class_path" not in text} - STUDIES == set(OVERLAYS)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_header_gives_command_cost_and_expectation(file: Path) -> None:
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"--config configs/{file.name}" in header
    assert file.stem in OVERLAYS or "Costs about" in header
    assert file.stem in {*OVERLAYS, *STUDIES} or ("Expect validation accuracy" in header and "minute" in header)


@pytest.mark.parametrize("name", RUNNABLE)
def test_it_trains_for_two_batches(name: str, fit: Fit, empty_folder: Path) -> None:
    files = ["cnn", name] if name in OVERLAYS else [name]
    folder = fit(
        empty_folder / "logs", [*(f"--config={CONFIGS / file}.yaml" for file in files), *FEW, *SMALLER.get(name, [])]
    )
    assert folder.parent.name.startswith("-".join(files))
    assert {path.parent.name for path in folder.rglob(EVENTS)} == {"version_0", "train", "train_clean", "val"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.*") if not path.match(EVENTS)}
    assert found == {"config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert [path.name for path in empty_folder.iterdir()] == ["logs"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_changes_one_setting(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    def settings(*names: str) -> dict[str, Any]:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["fit", *(f"--config={CONFIGS / name}.yaml" for name in names), "--print_config"])
        return flat(yaml.safe_load(capsys.readouterr().out))

    alone, together = settings("mlp"), settings("mlp", overlay)
    assert {key: value for key, value in together.items() if alone[key] != value} == OVERLAYS[overlay]


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_recipe_is_that_of_the_original_report(name: str) -> None:
    config = flat(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    expected = {"model.batch_norm": True, "model.dropout": 0.5, "model.lr": 1e-3, "model.optimizer": "adam"}
    expected |= {"model.schedule": "constant", "model.weight_decay": 0.0, "data.augment": "none"}
    expected |= {"data.batch_size": 100, "data.val_size": 10_000, "data.source": "cifar10"}
    expected |= {"trainer.max_epochs": 50, "trainer.accelerator": "auto"}
    assert {key: config[key] for key in expected} == expected


def test_config_yaml_repeats_the_run(fit: Fit, mlp_run: Path, tmp_path: Path) -> None:
    again = fit(tmp_path, [f"--config={mlp_run / 'config.yaml'}", f"--logs={tmp_path}"])
    assert again.parent.name == mlp_run.parent.name
    assert curves(again) == curves(mlp_run)
    assert len(curves(again)) == 1 + 3
