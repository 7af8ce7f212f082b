"""What the README says can be typed."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cifar_lightning.__main__ import HELP, main
from tests.conftest import CONFIGS, SMALL

ROOT = CONFIGS.parent
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"python -m cifar_lightning ([^#\n]+)", README)


@pytest.mark.parametrize("command", sorted({line.strip() for line in COMMANDS if line.startswith("fit")}))
def test_a_training_command_is_accepted(
    command: str, mlp_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    run = str(mlp_run)
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(command.replace("--resume logs/cnn/version_0", f"--resume {run}")), "--print_config"])
    assert stop.value.code == 0
    assert "class_path: cifar_lightning.models." in capsys.readouterr().out


def test_every_command_is_there() -> None:
    assert {line.split()[0] for line in COMMANDS} == {
        "fit",
        "validate",
        "test",
        "predict",
        "benchmark",
        "study",
        "report",
    }
    assert {line.split()[0] for line in re.findall(r"python -m cifar_lightning ([^#\n]+)", HELP)} <= {
        line.split()[0] for line in COMMANDS
    }


def test_the_flags_of_the_table_exist(capsys: pytest.CaptureFixture[str]) -> None:
    flags = set(re.findall(r"`(--(?:data|model|trainer)\.\w+)`", README))
    assert len(flags) > 15
    settings = set()
    for model in ("CNN", "MLP"):
        with pytest.raises(SystemExit):
            main(["fit", f"--model={model}", "--print_config"])
        settings |= set(re.findall(r"^ +(\w+):", capsys.readouterr().out, re.MULTILINE))
    assert {flag for flag in flags if flag.partition(".")[2] not in settings} == set()


def test_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_top_level_is_the_agreed_one() -> None:
    agreed = {"pyproject.toml", "cifar_lightning", "configs", "tests", "logs", "README.md"}
    here = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert agreed <= here
    assert here - agreed <= {"data"}  # git-ignored


NEWCOMER = """
import sys
from types import ModuleType
from cifar_lightning.__main__ import main
module = ModuleType("cifar_lightning.models.linear")
exec(open("linear.py").read(), module.__dict__)
sys.modules[module.__name__] = module
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_architecture_of_the_contributing_guide_trains(empty_folder: Path) -> None:
    guide = (ROOT / ".github/CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    Path("linear.py").write_text(textwrap.dedent(block))
    # In a process of its own: the parser remembers every architecture that it has seen.
    few = [*SMALL, "--trainer.max_epochs=1", "--data.val_size=1000"]
    model = ["--model=cifar_lightning.models.linear.Linear", "--model.dropout=0.1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", NEWCOMER, "fit", *model, *few], check=True, capture_output=True, env=env)
    best = "--ckpt_path=logs/linear-synthetic/version_0/checkpoints/best.ckpt"
    subprocess.run([sys.executable, "-c", NEWCOMER, "test", best], check=True, capture_output=True, env=env)
    assert Path("logs/linear-synthetic/version_0/test.json").exists()
