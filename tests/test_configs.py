"""Every shipped configuration is complete, says what it costs, and runs."""

from pathlib import Path

import pytest
import yaml

from cifar_lightning.__main__ import main
from tests.conftest import CONFIGS, Fit

STUDIES = sorted(CONFIGS.glob("study*.yaml"))  # see tests/study
FILES = sorted(set(CONFIGS.glob("*.yaml")) - set(STUDIES))
OVERLAYS = [file for file in FILES if "class_path" not in file.read_text()]
RUNNABLE = [file for file in FILES if file.stem != "mps"]
FEW = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"]


def flags(file: Path) -> list[str]:
    base = [f"--config={CONFIGS / 'cnn.yaml'}"] if file in OVERLAYS else []
    return [*base, f"--config={file}"]


def test_the_configurations_are_the_documented_ones() -> None:
    stems = {file.stem for file in FILES}
    assert stems >= {"cnn", "mlp", "quick", "cpu", "mps", "no_batch_norm", "no_dropout"}
    assert {file.stem for file in OVERLAYS} == {"cpu", "mps", "no_batch_norm", "no_dropout"}


@pytest.mark.parametrize("file", [*FILES, *STUDIES], ids=lambda file: file.stem)
def test_the_header_gives_the_command(file: Path) -> None:
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"--config configs/{file.name}" in header
    assert file in OVERLAYS or "costs about" in header.lower()
    assert file in (*OVERLAYS, *STUDIES) or ("expect" in header.lower() and "minutes" in header)


@pytest.mark.parametrize("file", RUNNABLE, ids=lambda file: file.stem)
def test_it_trains_for_two_batches(file: Path, fit: Fit, empty_folder: Path) -> None:
    folder = fit(empty_folder / "logs", [*flags(file), "--data.source=synthetic", *FEW])
    expected = f"{file.stem}-synthetic" if file not in OVERLAYS else f"cnn-{file.stem}-synthetic"
    assert folder.parent.name == expected
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    (events,) = (name for name in found if name.startswith("events.out.tfevents"))
    assert found == sorted([events, "config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"])
    assert [p.name for p in empty_folder.iterdir()] == ["logs"]


def test_mps_overlay_chooses_the_apple_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *flags(CONFIGS / "mps.yaml"), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["accelerator"] == "mps"


@pytest.mark.parametrize(
    ("overlay", "setting", "value"), [("no_batch_norm", "batch_norm", False), ("no_dropout", "dropout", 0.0)]
)
def test_an_ablation_changes_one_setting(
    overlay: str, setting: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    def settings(*files: str) -> dict[str, object]:
        with pytest.raises(SystemExit):
            main(["fit", *(f"--config={CONFIGS / file}.yaml" for file in files), "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        model: dict[str, object] = config["model"]["init_args"]
        return model

    plain, without = settings("mlp"), settings("mlp", overlay)
    assert {name for name in plain if plain[name] != without[name]} == {setting}
    assert without[setting] == value


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_report_recipe(name: str) -> None:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    model, data, trainer = config["model"]["init_args"], config["data"], config["trainer"]
    assert (model["batch_norm"], model["dropout"], model["lr"], model["optimizer"]) == (True, 0.5, 1e-3, "adam")
    assert (model["schedule"], model["weight_decay"], data["augment"]) == ("constant", 0.0, "none")
    assert (data["batch_size"], data["val_size"], data["source"]) == (100, 10_000, "cifar10")
    assert (trainer["max_epochs"], trainer["accelerator"]) == (50, "auto")


def test_config_yaml_repeats_the_run(fit: Fit, mlp_run: Path, tmp_path: Path) -> None:
    again = fit(tmp_path, [f"--config={mlp_run / 'config.yaml'}", f"--logs={tmp_path}"])
    assert again.parent.name == mlp_run.parent.name

    def rows(folder: Path) -> list[str]:  # all but the seconds
        return [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]

    assert rows(again) == rows(mlp_run)
    assert len(rows(again)) == 4
