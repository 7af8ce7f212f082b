"""From experiments to points and runs: what is shared, where it goes, what is refused."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cifar_lightning.__main__ import main
from cifar_lightning.data import datamodule
from cifar_lightning.errors import InputError
from cifar_lightning.results.records import Plan
from cifar_lightning.runs import metrics_csv
from cifar_lightning.study.config import Experiment, read
from cifar_lightning.study.identity import content, parse
from cifar_lightning.study.plan import plan, show_links
from cifar_lightning.study.progress import epochs_left
from tests.conftest import CONFIGS

CNN, MLP = str(CONFIGS / "cnn.yaml"), str(CONFIGS / "mlp.yaml")
REFERENCE = CONFIGS.parent / "logs" / "reference"


@pytest.mark.parametrize(("schedule", "shared"), [("constant", True), ("cosine", False), ("one-cycle", False)])
def test_a_longer_run_serves_for_its_beginning(schedule: str, shared: bool, tmp_path: Path) -> None:
    short = Experiment(base=CNN, epochs=20, set={"model.schedule": schedule})
    long = msgspec.structs.replace(short, epochs=50)
    points, runs, _ = plan({"short": short, "long": long}, tmp_path)
    assert (points[0].address == points[1].address) is shared
    assert [run.epochs for run in runs] == ([50] if shared else [20, 50])


def test_a_run_is_shared_by_all_that_ask_for_it(tmp_path: Path) -> None:
    sweep = Experiment(base=CNN, epochs=20, vary={"data.batch_size": [10, 100]})
    tested = Experiment(base=CNN, epochs=50, test=True)
    longer = Experiment(base=CNN, epochs=60, seeds=[0, 1])
    points, runs, links = plan({"sweep": sweep, "tested": tested, "longer": longer}, tmp_path)
    assert [(point.experiment, point.variant, point.seed, point.epochs) for point in points] == [
        ("sweep", "batch_size=10", 0, 20),
        ("sweep", "batch_size=100", 0, 20),
        ("tested", "tested", 0, 50),
        ("longer", "longer", 0, 60),
        ("longer", "longer", 1, 60),
    ]
    # The beginning of a longer run will do, but not for a test of the 50th epoch.
    assert points[1].address == points[3].address
    assert [(run.experiment, run.epochs, run.seed, run.test) for run in runs] == [
        ("sweep", 20, 0, False),
        ("longer", 60, 0, False),
        ("tested", 50, 0, True),
        ("longer", 60, 1, False),
    ]
    ((place, home),) = links.items()
    assert (place.parts[0], home) == ("sweep", runs[1].folder)
    # One that is tested serves those that need no test.
    points, (run,), _ = plan({"a": msgspec.structs.replace(tested, test=False), "b": tested}, tmp_path)
    assert points[0].address == points[1].address == run.address
    assert run.test


def test_a_new_point_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    few = plan({"lr": Experiment(base=MLP, epochs=2, vary={"model.lr": [0.1]})}, tmp_path).runs
    more = plan({"lr": Experiment(base=MLP, epochs=2, seeds=[0, 1], vary={"model.lr": [0.2, 0.1]})}, tmp_path).runs
    assert len(more) == 4
    assert few[0] in more


def test_another_run_of_the_same_name_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    (first,) = plan({"lr": Experiment(base=MLP, epochs=2, seeds=[3])}, tmp_path).runs
    assert first.folder == Path("lr") / "seed=3"
    changed = Experiment(base=MLP, epochs=2, seeds=[3], set={"model.width": 8})
    (second,) = plan({"lr": changed}, tmp_path, [first.record(status="started")]).runs
    assert second.folder == Path("lr") / f"seed=3,{second.address[:8]}"
    both = [run.record(status="started") for run in (first, second)]
    for each, run in ((changed, second), (Experiment(base=MLP, epochs=2, seeds=[3]), first)):
        assert plan({"renamed": each}, tmp_path, both).runs[0].folder == run.folder
    # Nobody knows what a run without a record is, unless its address is in the name.
    first.files.path.with_name("version_3").mkdir(parents=True)
    assert plan({"lr": changed}, tmp_path).runs[0].folder == second.folder
    second.files.path.mkdir(parents=True)
    shutil.rmtree(first.files.path.parent)
    assert plan({"lr": changed}, tmp_path).runs[0].folder == second.folder
    # It is seen in its experiment already, by whatever name.
    assert plan({"lr": changed}, tmp_path, both[1:]).links == {}


def test_links_are_those_of_the_layout_and_not_counted_as_runs(tmp_path: Path) -> None:
    once, more = Experiment(base=MLP, epochs=2), Experiment(base=MLP, epochs=3)
    together = plan({"once": once, "more": more}, tmp_path)
    (run,) = together.runs
    run.files.path.mkdir(parents=True)
    metrics_csv.write(run.files.metrics, [{"epoch": 1}])
    show_links(together, tmp_path)
    (link,) = (path for path in tmp_path.glob("*/*") if path.is_symlink())
    assert link.parent.name == "once"
    other, begun = msgspec.structs.replace(once, set={"model.lr": 0.1}), [run.record(status="started")]
    changed = plan({"once": other, "more": more}, tmp_path, begun)
    assert [(each.folder, epochs_left(each)) for each in changed.runs] == [(Path("once/seed=0"), 2), (run.folder, 2)]
    show_links(changed, tmp_path)
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.source": ["cifar10"]}, r"experiment one: data.source: \['cifar10'\] is not possible; use one of cifar"),
        ({"data.source": "auto", "data.mirrors": 5}, r"experiment one: data.mirrors: 5 is not possible; use a list"),
        ({"model.drpout": 0.5}, "experiment one: model.drpout: MLP has no drpout; did you mean model.dropout"),
        ({"data.batch_size": "abc"}, "experiment one: data.batch_size: abc is not possible; use a whole number"),
        ({"trainer.epochs": 3}, "experiment one: trainer.epochs: there is no such setting"),
    ],
)
def test_what_the_parser_refuses_is_named(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        plan({"one": Experiment(base=MLP, epochs=1, set=settings)}, tmp_path)


def test_so_is_a_base_configuration_that_is_none(tmp_path: Path) -> None:
    for text in ("model: {init_args: {lr: 2020-01-01}}", "model: {lr: [", "[1]"):
        (tmp_path / "base.yaml").write_text(text)
        with pytest.raises(InputError, match=r"experiment one: .*(base\.yaml|model)"):
            plan({"one": Experiment(base=str(tmp_path / "base.yaml"), epochs=1)}, tmp_path)


def test_a_grid_is_each_with_each_and_the_same_runs_as_if_they_were_written_out(tmp_path: Path) -> None:
    grid: dict[str, list[Any]] = {"data.batch_size": [10, 100], "model.lr": [0.1, 0.2]}
    listed: dict[str, list[Any]] = {"data.batch_size": [10, 10, 100, 100], "model.lr": [0.1, 0.2, 0.1, 0.2]}
    short = Experiment(base=MLP, epochs=1, seeds=[0, 1], grid=grid)
    points, runs, _ = plan({"one": short}, tmp_path)
    assert [(point.variant, point.seed) for point in points] == [
        (f"batch_size={size},lr={lr}", seed) for size in (10, 100) for lr in (0.1, 0.2) for seed in (0, 1)
    ]
    assert len({run.address for run in runs}) == 8
    long = msgspec.structs.replace(short, grid={}, vary=listed)
    assert plan({"one": long}, tmp_path) == (points, runs, {})


@pytest.mark.parametrize("values", [[0, 0.0], [1e-2, 0.01]])
def test_each_value_stands_once(values: list[float], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"experiment one, dropout=.*: the same run as .*; give each value once"):
        plan({"one": Experiment(base=MLP, epochs=1, vary={"model.dropout": values})}, tmp_path)


def test_a_folder_s_name_is_no_longer_than_a_name_may_be(tmp_path: Path) -> None:
    mirrors = [[f"https://example.org/{'é' * n}"] for n in (200, 201)]
    one = Experiment(base=MLP, epochs=1, vary={"data.mirrors": mirrors, "model.lr": [0.1, 0.2]})
    first, second = plan({"one": one}, tmp_path).runs
    assert first.folder != second.folder
    assert len(first.folder.name.encode()) < 200


def test_the_source_that_auto_came_to_is_in_the_command(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter(["synthetic"])  # once: a bad network is not asked at every point
    monkeypatch.setattr(datamodule, "resolve_source", lambda source, *_: next(found) if source == "auto" else source)
    experiment = Experiment(base=str(CONFIGS / "quick.yaml"), epochs=1, vary={"model.lr": [0.1, 0.2]})
    run, _ = plan({"quick": experiment}, empty_folder).runs
    assert run.source == "synthetic"
    assert "--data.source synthetic" in run.command
    assert run.folder == Path("quick") / "lr=0.1,seed=0-synthetic"


@pytest.mark.parametrize("name", ["study", "study_quick"])
def test_every_run_of_a_shipped_study_is_a_fit_of_that_content(name: str, tmp_path: Path, cifar10_root: Path) -> None:
    for run in plan(read(CONFIGS / f"{name}.yaml"), tmp_path).runs:
        settings = parse(run.arguments[1:])
        assert content(settings) == run.settings
        assert settings["seed_everything"] == run.seed


def test_the_published_records_serve_the_shipped_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(REFERENCE, copy, ignore=shutil.ignore_patterns("figures", "report.*"))
    monkeypatch.chdir(CONFIGS.parent)
    assert main(["study", "--config=configs/study.yaml", f"--output={copy}", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "0 of 163 runs to do"
    assert [line.split()[0] for line in lines[:-1]].count("done") == 163
    points = plan(read(Path("configs/study.yaml")), copy).points
    assert points == msgspec.json.decode((copy / "plan.json").read_bytes(), type=Plan).points
