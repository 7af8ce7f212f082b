"""Runs are known by their content: what changes no figure changes no address, and what does, does."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifar_lightning.__main__ import main
from cifar_lightning.cli.config_files import flat
from cifar_lightning.errors import InputError
from cifar_lightning.study.config import Experiment, read
from cifar_lightning.study.identity import PACKAGE, code_version, content_address
from cifar_lightning.study.plan import grid
from tests.conftest import CONFIGS

SETTINGS = flat(yaml.safe_load((CONFIGS / "cnn.yaml").read_text()))


def address(changed: dict[str, Any] | None = None, epochs: int = 20, seed: int = 0, code: str = "a") -> str:
    return content_address(SETTINGS | (changed or {}), epochs, seed, "cifar10", code)


def test_settings_are_dotted_as_flags_are() -> None:
    assert SETTINGS["model.class_path"] == "cifar_lightning.models.CNN"
    assert SETTINGS["model.dropout"] == 0.5
    assert SETTINGS["data.batch_size"] == 100
    assert SETTINGS["trainer.max_epochs"] == 50


@pytest.mark.parametrize(
    "changed",
    [
        {"data.root": "elsewhere"},
        {"data.num_workers": 2},
        {"trainer.accelerator": "cpu"},
        {"model.dropout": 0.50},
        {"trainer.limit_train_batches": 400},
        {"trainer.limit_train_batches": 1000},
    ],
)
def test_what_changes_no_figure_changes_no_address(changed: dict[str, Any]) -> None:
    assert address(changed) == address()


def test_a_whole_number_is_one_however_it_is_written() -> None:
    assert address({"model.dropout": 0}) == address({"model.dropout": 0.0}) != address()
    assert address({"model.channels": [16, 32]}) == address({"model.channels": [16.0, 32]}) != address()


def test_one_batch_is_not_all_of_them() -> None:
    assert address({"trainer.limit_val_batches": 1}) != address({"trainer.limit_val_batches": 1.0})


@pytest.mark.parametrize(
    "changed",
    [
        {"model.dropout": 0.4},
        {"model.batch_norm": False},
        {"model.channels": [64]},
        {"data.batch_size": 10},
        {"data.train_size": 1000},
        {"trainer.limit_train_batches": 399},
        {"data.augment": "flip-shift"},
    ],
)
def test_what_changes_a_figure_changes_the_address(changed: dict[str, Any]) -> None:
    assert address(changed) != address()


def test_seed_code_epochs_and_source_count() -> None:
    found = {address(), address(seed=1), address(code="b"), address(epochs=21)}
    assert len({*found, content_address(SETTINGS, 20, 0, "synthetic", "a")}) == 5


@pytest.mark.parametrize(("schedule", "shared"), [("constant", True), ("cosine", False), ("one-cycle", False)])
def test_a_longer_run_serves_for_its_beginning(schedule: str, shared: bool, tmp_path: Path) -> None:
    short = Experiment(base=str(CONFIGS / "cnn.yaml"), epochs=20, set={"model.schedule": schedule})
    points, cells, _ = grid({"short": short, "long": replace(short, epochs=50)}, tmp_path)
    assert (points[0].address == points[1].address) is shared
    assert [cell.epochs for cell in cells] == ([50] if shared else [20, 50])


def test_the_code_counts_but_not_what_is_said_of_it(tmp_path: Path) -> None:
    copy = tmp_path / "package"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_version(copy) == code_version()
    model = copy / "models" / "mlp.py"
    was = model.read_text()
    model.write_text(was.replace('"""The report', '"""Once more, the report') + "\n# a comment\n")
    (copy / "callbacks" / "console.py").write_text("")
    assert code_version(copy) == code_version()
    for file in ("models/mlp.py", "data/split.py", "data/loader.py", "seeds.py", "callbacks/seeding.py"):
        path = copy / file
        was = path.read_text()
        path.write_text(was + "\nx = 1\n")
        assert code_version(copy) != code_version(), file
        path.write_text(was)


def test_a_run_is_shared_by_all_that_want_it(tmp_path: Path) -> None:
    base = str(CONFIGS / "cnn.yaml")
    sweep = Experiment(base=base, epochs=20, vary={"data.batch_size": [10, 100]})
    tested = Experiment(base=base, epochs=50, test=True)
    longer = Experiment(base=base, epochs=60, seeds=[0, 1])
    points, cells, places = grid({"sweep": sweep, "tested": tested, "longer": longer}, tmp_path)
    assert [(point.experiment, point.variant, point.seed, point.epochs) for point in points] == [
        ("sweep", "batch_size=10", 0, 20),
        ("sweep", "batch_size=100", 0, 20),
        ("tested", "tested", 0, 50),
        ("longer", "longer", 0, 60),
        ("longer", "longer", 1, 60),
    ]
    # The beginning of a longer run will do, but not for a test of the 50th epoch.
    assert points[1].address == points[3].address
    assert [(cell.experiment, cell.epochs, cell.seed, cell.test) for cell in cells] == [
        ("sweep", 20, 0, False),
        ("longer", 60, 0, False),
        ("tested", 50, 0, True),
        ("longer", 60, 1, False),
    ]
    assert [place.parts[0] for place, address in places.items() if address == points[1].address] == ["sweep", "longer"]


def test_one_that_is_tested_serves_those_that_need_no_test(tmp_path: Path) -> None:
    base = str(CONFIGS / "cnn.yaml")
    points, (cell,), _ = grid(
        {"a": Experiment(base=base, epochs=20), "b": Experiment(base=base, epochs=20, test=True)}, tmp_path
    )
    assert points[0].address == points[1].address == cell.address
    assert cell.test


def test_a_new_point_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    base = str(CONFIGS / "mlp.yaml")
    few = grid({"lr": Experiment(base=base, epochs=2, vary={"model.lr": [0.1]})}, tmp_path).cells
    more = grid({"lr": Experiment(base=base, epochs=2, seeds=[0, 1], vary={"model.lr": [0.2, 0.1]})}, tmp_path).cells
    assert len(more) == 4
    assert few[0] in more


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.source": ["cifar10"]}, r"experiment one, data.source: \['cifar10'\] is not possible; use cifar10 or"),
        ({"data.source": "auto", "data.root": ["a"]}, r"experiment one, data.root: \['a'\] is not possible"),
        ({"data.source": "auto", "data.mirrors": 5}, r"experiment one, data.mirrors: 5 is not possible; use a list"),
    ],
)
def test_where_images_come_from_is_looked_at(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        grid({"one": Experiment(base=str(CONFIGS / "mlp.yaml"), epochs=1, set=settings)}, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data.batch_size": 0},
        {"data.batch_size": None},
        {"data.batch_size": "abc"},
        {"data.train_size": "abc"},
        {"data.val_size": "abc"},
    ],
)
def test_what_fit_will_refuse_has_an_address(wrong: dict[str, Any], tmp_path: Path) -> None:
    settings = {"trainer.limit_train_batches": 3, **wrong}
    (cell,) = grid({"one": Experiment(base=str(CONFIGS / "mlp.yaml"), epochs=1, set=settings)}, tmp_path).cells
    assert cell.address != address()


def test_a_folder_s_name_is_no_longer_than_a_name_may_be(tmp_path: Path) -> None:
    mirrors = [[f"https://example.org/{'é' * n}"] for n in (200, 201)]
    first, second = grid(
        {"one": Experiment(base=str(CONFIGS / "mlp.yaml"), epochs=1, vary={"data.augment": mirrors})}, tmp_path
    ).cells
    assert first.name != second.name
    assert len(first.folder.name.encode()) < 200


def test_the_source_that_auto_came_to_is_in_the_command(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cifar_lightning.study import plan as module

    asked: list[str] = []

    def resolve(source: str, *_: object) -> str:
        asked.append(source)
        return "synthetic"

    monkeypatch.setattr(module, "resolve_source", resolve)
    experiment = Experiment(base=str(CONFIGS / "quick.yaml"), epochs=1, vary={"model.lr": [0.1, 0.2]})
    cell, _ = grid({"quick": experiment}, empty_folder).cells
    assert asked == ["auto"]  # a bad network is asked once, not at every point
    assert cell.source == "synthetic"
    assert "--data.source synthetic" in cell.typed
    assert cell.folder == Path("quick") / f"lr=0.1,seed=0,{cell.address[:8]}-synthetic"


@pytest.mark.parametrize("name", ["study", "study_quick"])
def test_every_cell_of_a_shipped_study_is_a_fit(
    name: str, tmp_path: Path, cifar10_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in grid(read(CONFIGS / f"{name}.yaml"), tmp_path).cells:
        with pytest.raises(SystemExit) as stop:
            main([*cell.command, "--print_config"])
        assert stop.value.code == 0
        parsed = yaml.safe_load(capsys.readouterr().out)
        settings = flat(parsed)
        for key, value in cell.settings.items():
            if key != "seed_everything":
                assert settings[key] == value, key
        assert settings["seed_everything"] == cell.seed
