"""The README is true: its results are those of logs/reference, its examples run, its flags and files exist."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.stats import t

from cifar_lightning.__main__ import HELP, main
from cifar_lightning.cli.config_files import flat
from tests.conftest import CONFIGS, SMALL, ray_alone

SLOW = pytest.mark.slow
ROOT = CONFIGS.parent
REFERENCE = ROOT / "logs/reference"
README, GUIDE = (ROOT / "README.md").read_text(), (ROOT / ".github/CONTRIBUTING.md").read_text()
EXAMPLES = [line.split() for line in re.findall(r"python -m cifar_lightning (?!fit --help)([^#`\n]+)", README)]
TINY = {"data.source": "synthetic", "data.train_size": 200, "data.val_size": 100, "data.train_clean_size": 50}
RUNS = pd.read_csv(REFERENCE / "results.csv").set_index("experiment")
RECORDS = [json.loads(path.read_text()) for path in REFERENCE.glob("*/*/result.json")]
ORIGINAL = yaml.safe_load((ROOT / "cifar_lightning/report/claims.yaml").read_text())


def numbers(text: str) -> list[str]:
    """All but those in names (CIFAR-10), links and 'a 95 % interval', in order."""
    return re.findall(r"(?<![\w.-])\d+(?:[.,]\d+)*", re.sub(r"\]\([^)]*\)|95 % interval", "", text))


@pytest.mark.parametrize(("experiment", "original"), ORIGINAL["runs"].items())
def test_the_results_table_shows_the_records(experiment: str, original: dict[str, float]) -> None:
    runs = RUNS.loc[[experiment]]
    row = f"| {experiment.replace('_no_', ' without ').replace('_', ' ')} | {len(runs)} |"
    for metric in ("train/acc", "best_val/acc", "test/acc"):
        sd = f" ± {runs[metric].std():.3f}" if len(runs) > 1 else ""
        was = f" ({original[metric]:.3f}{'*' * (experiment in ORIGINAL['garbled'])})" if metric in original else ""
        row += f" {runs[metric].mean():.3f}{sd}{was} |"
    assert row in re.sub("CNN|MLP", lambda network: network[0].lower(), README.replace("**", ""))


def gain(network: str, part: str) -> str:
    """Points of best validation accuracy that a part adds, paired by seed; the 95 % interval if n > 1; n."""
    whole, without = (RUNS.loc[[name]].set_index("seed")["best_val/acc"] for name in (network, f"{network}_no_{part}"))
    points = 100 * (whole - without)
    images = 196 * sum(acc * (1 - acc) / 10_000 for acc in (whole.mean(), without.mean())) ** 0.5  # the least: binomial
    mean, half, n = points.mean(), max(t.ppf(0.975, len(points) - 1) * points.sem(), images), len(points)
    return f"{mean:.1f} {mean - half:.1f} {mean + half:.1f} {n}" if n > 1 else f"{mean:.1f} {n}"


def test_the_numbers_in_the_prose_are_those_of_the_records() -> None:
    above = re.sub(r"\| (CNN|MLP).*", "", README.partition("\n## ")[0])
    assert numbers(above) == [str(RUNS.epochs["cnn"].iloc[0])]
    assert {record["environment"]["precision"] for record in RECORDS} == {"bf16-mixed"}
    places = [" ".join([each["folder"], *map(str, each["environment"].values())]) for each in RECORDS]
    assert {*re.findall(r"H\d00", " ".join(places))} == {*re.findall(r"H\d00", above)}
    assert {"EPYC" in place for place in places if "mlp" in place} == {True}
    assert {" cpu" in place for place in places if place.startswith("cnn")} == {True, False}  # 'some'
    (steps,) = {r["settings"]["trainer.limit_train_batches"] for r in RECORDS if "batch_size_updates/" in r["folder"]}
    best = RUNS.set_index(["data.batch_size", "model.dropout"], append=True)["best_val/acc"]
    best = best.groupby(level=[0, 1, 2]).mean().map("{:.2f}".format)
    report = (REFERENCE / "report.md").read_text()
    scalings = r"^\| (?:stock|always) \| (\d+) of (\d+) \|[^|]*\| (\d+) of (\d+)"
    (stock, cnn, control, mlp), (always, _, fewer, _) = re.findall(scalings, report, re.MULTILINE)
    (by_three,) = re.findall(r"share \(0, 1, 2\).*\*always\* (\d+)", report)
    expected = f"""46 26 13 7 7 2 2 3 {always} {cnn} {by_three} {stock} {mlp} {fewer} {control}
        {gain("mlp", "batch_norm")} {gain("cnn", "batch_norm")}
        {gain("mlp", "dropout")} {gain("cnn", "dropout")} 20 100 {best["batch_size", 100, 0.5]} {20 * 40_000 // 100:,}
        10,000 {best["batch_size", 10_000, 0.5]} {20 * 40_000 // 10_000} {20 * steps}
        100 {best["batch_size_updates", 100, 0.5]}
        0.8 {best["dropout", 100, 0.8]} {ORIGINAL["sweeps"][1]["values"][0.8]:.2f}"""
    assert numbers(README.partition("### Findings")[2].partition("\n## ")[0]) == numbers(expected)
    assert "26 of the original's 46 numbers are reproduced, 13 are not" in report
    assert "7 can't be judged" in report
    assert "Its 7 statements: 2 supported, 2 not supported, 3 open." in report


def mean_and_sd(accuracies: pd.Series, digits: int) -> str:
    return f"{100 * accuracies.mean():.{digits}f} ± {100 * accuracies.std():.{digits}f} %"


def test_the_figures_of_the_recipes_are_those_of_the_records() -> None:
    recipes = REFERENCE / "recipes"
    gpu = {images: runs["test/acc"] for images, runs in pd.read_csv(recipes / "speedrun_h200.csv").groupby("images")}
    (alone,) = recipes.glob("speedrun/*/metrics.csv")
    sprints = [pd.read_csv(path) for path in recipes.glob("sprint/*/metrics.csv")]
    reached, seconds = pd.Series([run["val/acc"].iloc[-1] for run in sprints]), [sum(x.epoch_seconds) for x in sprints]
    test = json.loads((alone.parent / "test.json").read_text())["acc"]
    text = f"""`speedrun.yaml` reaches a test accuracy of {mean_and_sd(gpu[50_000], 2)} (n = {len(gpu[50_000])},
        `--data.val_size 0`; {mean_and_sd(gpu[40_000], 2)}, n = {len(gpu[40_000])}, with 40,000 images) on an H200, and
        {100 * test:.1f} % (n = 1) in {sum(pd.read_csv(alone).epoch_seconds) / 60:.1f} minutes on two cores.
        `sprint.yaml` reaches {mean_and_sd(reached, 1)} on validation images (n = {len(reached)}) in {min(seconds):.0f}
        to {max(seconds):.0f} s."""
    assert " ".join(text.split()) in " ".join(README.split())


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("recipes/*/*/config.yaml")), ids=lambda path: path.parent.name)
def test_the_recipes_were_run_as_they_are(path: Path) -> None:
    name = path.parent.parent.name
    asked, ran = (flat(yaml.safe_load(file.read_text())) for file in (CONFIGS / f"{name}.yaml", path))
    for settings in (asked, ran):
        settings.pop("seed_everything")
        (callback,) = settings.pop("trainer.callbacks")
        settings["decay"] = (callback["class_path"], callback["init_args"]["decay"])
    assert ran.items() >= asked.items()


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize(
    "commands", ["fit validate test predict export", pytest.param("study report benchmark", marks=SLOW)]
)
def test_the_examples_run(commands: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the README, in one folder, cut down: few images and epochs, studies of one run."""
    monkeypatch.syspath_prepend(empty_folder)
    monkeypatch.setenv("RAY_ADDRESS", "local")  # not the cluster of another test
    Path("mine.py").write_text("from lightning.pytorch import Callback\nclass Hello(Callback):\n    pass\n")
    Path("my_images").mkdir()
    Image.new("RGB", (40, 30)).save("my_images/grey.png")
    shutil.copytree(CONFIGS, "configs")
    mlp = {"base": "mlp.yaml", "epochs": 1, "set": {**TINY, "model.width": 8}}
    for study in Path("configs").glob("study*.yaml"):
        study.write_text(yaml.safe_dump({"experiments": {"mlp": mlp}}))
    tiny = [f"--{name}={value}" for name, value in TINY.items()]
    for command, *flags in EXAMPLES:
        epochs = f"--trainer.max_epochs={1 + ('--resume' in flags) + 2 * ('--ckpt_path' in flags)}"
        fewer = {"fit": [epochs, *tiny * ("--resume" not in flags)], "benchmark": ["--model=MLP", "--rounds=1", *tiny]}
        if "configs/cnn.yaml" in flags:  # which would be named by these flags, too
            fewer["fit"].append("--name=cnn")
        here = [flag.replace("logs/cnn/", "logs/cnn-synthetic/") for flag in flags]
        if command in commands:
            with ray_alone() if "ray" in flags else nullcontext():
                assert main([command, *here, *fewer.get(command, [])]) == 0, flags


def test_commands_and_settings_exist(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(re.findall(r"-m cifar_lightning (\w+)", HELP)) == {command for command, *_ in EXAMPLES}
    Path("settings.yaml").write_text(settings := README.partition("```yaml\n")[2].partition("```")[0])
    commands = ("fit", "predict", "export", "study", "report")
    for words in ("fit --config settings.yaml --print_config", *(f"{command} --help" for command in commands)):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(words.split())
    known = {
        *re.findall(r"--[\w.-]+", capsys.readouterr().out),
        "--debug",
        "--index-url",
        "--logdir",
        "--trainer.callbacks.monitor",
    }
    known |= {f"--model.{name}" for name in yaml.safe_load(settings)["model"]["init_args"]}
    ours = re.sub("#SBATCH.*", "", README)
    assert set(re.findall(r"(?<![\w|-])--[a-z][\w.-]+", ours)) - known == set()


def test_it_is_short_and_its_links_and_the_agreed_top_level_exist() -> None:
    assert len(README.split()) <= 1500
    assert {link for link in re.findall(r"\]\(([^)#]+)\)", README) if not (ROOT / link).exists()} == set()
    agreed = {"pyproject.toml", "cifar_lightning", "configs", "tests", "logs", "README.md"}
    assert agreed <= {path.name for path in ROOT.iterdir() if path.name[0] != "."} <= agreed | {"data"}  # git-ignored


@SLOW
def test_the_architecture_of_the_contributing_guide_trains(empty_folder: Path) -> None:
    """In a copy of the package and in a process of its own: the parser remembers every architecture."""
    shutil.copytree(ROOT / "cifar_lightning", "cifar_lightning")
    for language, file in {"python": "cifar_lightning/models/linear.py", "yaml": "linear.yaml"}.items():
        Path(file).write_text(GUIDE.partition(f"```{language}\n")[2].partition("```")[0])
    fit = ["fit", "--config=linear.yaml", "--name=linear", *SMALL, "--trainer.max_epochs=1"]
    test = ["test", "--ckpt_path=logs/linear-synthetic/version_0/checkpoints/best.ckpt"]
    code = f"from cifar_lightning.__main__ import main; raise SystemExit(main({fit}) or main({test}))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert Path("logs/linear-synthetic/version_0/test.json").exists()
