"""A study's configuration is understood, or refused with the place that is wrong."""

from pathlib import Path

import msgspec
import pytest
import yaml

from cifar_lightning.errors import InputError
from cifar_lightning.study.config import Experiment, read
from tests.conftest import CONFIGS


def study(folder: Path, text: str) -> Path:
    (folder / "mlp.yaml").write_text((CONFIGS / "mlp.yaml").read_text())
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_what_stands_beside_the_experiments_holds_for_all_that_do_not_differ(tmp_path: Path) -> None:
    path = study(
        tmp_path,
        """
        seeds: [3, 4]
        set: {model.dropout: 0.2, data.train_size: 1000}
        experiments:
          one: {base: mlp.yaml, epochs: 2}
          two:
            {base: mlp.yaml, epochs: 3, seeds: [5], test: true, set: {model.dropout: 0.1},
             vary: {data.batch_size: [10, 20], model.lr: [1, 2]}}
        """,
    )
    base = str(tmp_path / "mlp.yaml")
    shared = {"model.dropout": 0.2, "data.train_size": 1000}
    one, two = read(path).values()
    assert one == Experiment(base=base, epochs=2, seeds=[3, 4], set=shared)
    assert two.set == {"model.dropout": 0.1, "data.train_size": 1000}
    assert (two.epochs, two.seeds, two.test) == (3, [5], True)
    assert one.variants == [{}]
    assert two.variants == [{"data.batch_size": 10, "model.lr": 1}, {"data.batch_size": 20, "model.lr": 2}]


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "1E-4", "+1e-4", "0.0001", "1.e-4"])
def test_a_number_is_one_however_it_is_written(number: str, tmp_path: Path) -> None:
    path = study(tmp_path, f"experiments: {{one: {{base: mlp.yaml, epochs: 1, vary: {{model.lr: [{number}]}}}}}}")
    assert read(path)["one"].vary == {"model.lr": [1e-4]}


def test_what_varies_in_step_goes_with_every_combination_of_the_grid(tmp_path: Path) -> None:
    text = "vary: {data.batch_size: [10, 20], model.lr: [1, 2]}, grid: {model.width: [3, 4], model.depth: [5, 6]}"
    path = study(tmp_path, f"experiments: {{one: {{base: mlp.yaml, epochs: 1, {text}}}}}")
    names = ["data.batch_size", "model.lr", "model.width", "model.depth"]
    values = [(*pair, width, depth) for pair in ((10, 1), (20, 2)) for width in (3, 4) for depth in (5, 6)]
    assert read(path)["one"].variants == [dict(zip(names, each, strict=True)) for each in values]


ONE = "experiments: {one: {base: mlp.yaml, epochs: 1, %s}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [0]", r"study.yaml, experiments: there are none"),
        ("experiments: {}", r"experiments: there are none"),
        ("experiments: [a]", r"experiments: there are none"),
        ("experiments: {one: 3}", r"experiments.one: holds no settings"),
        ("experiments: {a/b: {base: mlp.yaml, epochs: 1}}", r"experiments.a/b: 'a/b' is not possible; use letters"),
        ("experiments: {one: {epochs: 1}}", r"experiments.one: Object missing required field `base`; see configs/"),
        (
            "experiments: {one: {base: no.yaml, epochs: 1}}",
            r"one.base: .*no.yaml: there is no .* relative to the",
        ),
        ("experiments: {one: {base: 3, epochs: 1}}", r"experiments.one: base: Expected `str`, got `int`"),
        ("experiments: {one: {base: mlp.yaml, epochs: 0}}", r"experiments.one: epochs: Expected `int` >= 1"),
        ("experiments: {one: {base: mlp.yaml, epochs: true}}", r"experiments.one: epochs: Expected `int`, got `bool`"),
        (ONE % "sed: [1]", r"experiments.one: Object contains unknown field `sed`"),
        ("sets: {}\n" + ONE % "test: true", r"experiments.one: Object contains unknown field `sets`"),
        (ONE % "seeds: []", r"one: seeds: Expected `array` of length >= 1"),
        (ONE % "seeds: [1, 1]", r"one.seeds: \[1, 1\] is not possible; use each once"),
        (ONE % "seeds: [-1]", r"one: seeds\[0\]: Expected `int` >= 0"),
        (ONE % "set: 3", r"one: set: Expected `object`, got `int`"),
        ("set: [1]\n" + ONE % "set: {model.lr: 1}", r"one: set: Expected `object`, got `array`"),
        (ONE % "vary: {model.lr: 3}", r"one: vary\[...\]: Expected `array`, got `int`"),
        (ONE % "vary: {model.lr: [1], model.dropout: [1, 2]}", r"one.vary: .* use lists of equal length, or `grid`"),
        (ONE % "vary: {model.lr: [1]}, grid: {model.lr: [2]}", r"one.grid: \['model.lr'\] is not .* vary already"),
        (ONE % "grid: {model.lr: 1}", r"one: grid\[...\]: Expected `array`, got `int`"),
        (ONE % "grid: {model: [1]}", r"one, model: .* dotted"),
        (ONE % "grid: {trainer.max_epochs: [1, 2]}", r"trainer.max_epochs: .* use `epochs` of the experiment"),
        (ONE % "vary: {model.lr: []}", r"one: vary\[...\]: Expected `array` of length >= 1"),
        (ONE % "set: {seed_everything: 1}", r"one, seed_everything: .* dotted"),
        (ONE % "set: {model: {lr: 1}}", r"one, model: .* dotted"),
        (ONE % "set: {model.callback: {lr: 1}}", r"one, model.callback: .* dotted"),
        (ONE % "set: {trainer.max_epochs: 1}", r"trainer.max_epochs: .* use `epochs` of the experiment"),
        # YAML knows more than a command line.
        (ONE % "set: {model.lr: 2020-01-01}", r"experiments.one: .*datetime.date.* use numbers"),
        (ONE % "set: {model.lr: !!binary aGk=}", r"experiments.one: .*b'hi'.* use numbers"),
        (ONE % "set: {model.lr: !!set {a}}", r"experiments.one: .* use numbers"),
        (ONE % "set: {model.lr: &x [*x]}", r"experiments.one: .*\[\[...\]\].* use numbers"),
        (ONE % 'set: {model.lr: "a\\0b"}', r"experiments.one: .*a\\x00b.* use numbers"),
        ("experiments:\n  a: {base: mlp.yaml}\n  a: {epochs: 1}", r"line 3: not valid .* 'a' stands there tw"),
        ("experiments:\n  1: {base: mlp.yaml}\n  '1': {epochs: 1}", r"line 3: not valid YAML; .* '1' stands there"),
        (ONE % "epochs: 2", r"line 1: .* 'epochs' stands there twice"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read(study(tmp_path, text))


def test_the_study_is_the_report_s() -> None:
    study, quick = (read(CONFIGS / f"{name}.yaml") for name in ("study", "study_quick"))
    scaled = {name: study.pop(name) for name in [*study] if name.endswith("_dropout_scaling")}
    assert [(name, list(each.vary)) for name, each in quick.items()] == [(n, list(e.vary)) for n, e in study.items()]
    bases = {name: Path(experiment.base).stem for name, experiment in study.items()}
    mlps, cnns = ([name, f"{name}_no_batch_norm", f"{name}_no_dropout"] for name in ("mlp", "cnn"))
    assert {name for name, base in bases.items() if base == "mlp"} == {*mlps, "learning_rate"}
    tested = {name: experiment.epochs for name, experiment in study.items() if experiment.test}
    assert tested == dict.fromkeys(mlps + cnns, 50)
    assert study["batch_size"].vary == {"data.batch_size": [10, 100, 1000, 10_000]}
    assert study["dropout"].vary == {"model.dropout": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]}
    assert (study["batch_size"].epochs, study["dropout"].epochs) == (20, 20)
    # What has dropout is made again with each scaling, with as many seeds; the sweep where there is something to scale.
    assert len(scaled) == 6
    for name, each in scaled.items():
        stock, grid = study[name.removesuffix("_dropout_scaling")], each.grid
        assert grid.pop("model.dropout_scaling") == ["never", "always"]
        assert grid == {key: [x for x in values if x not in (0.0, 1.0)] for key, values in stock.vary.items()}
        assert msgspec.structs.replace(each, grid={}, vary=stock.vary) == stock
    base = yaml.safe_load((CONFIGS / "cnn.yaml").read_text())
    for size, lr in zip(*study["batch_size_scaled"].vary.values(), strict=True):
        assert lr == pytest.approx(base["model"]["init_args"]["lr"] * (size / 100) ** 0.5, rel=1e-3)
    # Every size makes the updates of the largest.
    whole, updates = study["batch_size"], study["batch_size_updates"]
    most = 40_000 // max(whole.vary["data.batch_size"])
    assert updates.set["trainer.limit_train_batches"] == most == 4
    assert updates.epochs == whole.epochs
