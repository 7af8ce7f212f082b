"""Several processes train what one does; whichever of them is killed, all end, and the run resumes to the same bits."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from cifar_lightning.data import Batch, datamodule, loader, transforms
from cifar_lightning.data.loader import Batches, Part
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs import metrics_csv
from tests.conftest import Once, run_folder
from tests.faults.compare import differences
from tests.faults.processes import (
    MODEL,
    NOTHING,
    SAVE,
    Before,
    Befores,
    When,
    at_call,
    full_disk,
    send,
    start,
    start_group,
)
from tests.faults.resume_users import REQUEUED, enter_job

DATA = "--data.source=synthetic --data.val_size=997 --data.train_clean_size=100 --data.augment=flip-shift"
FLAGS = ["fit", "--model=MLP", "--model.width=16", *DATA.split(), "--name=run", "--trainer.accelerator=cpu"]
# With batch norm or dropout, of which each process has its own, one process is another function.
PLAIN = ["--model.batch_norm=false", "--model.dropout=0", "--model.optimizer=sgd", "--model.lr=0.05"]
PLAIN += ["--data.train_size=1037", "--data.batch_size=100", "--trainer.max_epochs=1", "--trainer.precision=32-true"]
# Sums of float32 in another order, over 11 steps: seen at most 6e-8 with weights of up to 0.25.
TOLERANCE = 1e-6


def together(folder: Path, args: list[str], processes: int, befores: Befores = NOTHING) -> list[tuple[int, str]]:
    """Run a command as so many processes; once one has failed, end the others as a launcher would."""
    children = start_group(folder, args, processes, befores)
    while any(child.process.is_alive() for child in children):
        if any(child.process.exitcode for child in children):
            for child in children:
                child.process.join(20)
                child.process.kill()
        time.sleep(0.02)
    results = [child.run() for child in children]
    print(args, results)  # shown if the test fails
    assert not any("Traceback" in output for _, output in results)
    return results


def trained(folder: Path, args: list[str], processes: int, befores: Befores = NOTHING) -> Path:
    folder.mkdir()
    assert {status for status, _ in together(folder, args, processes, befores)} == {0}
    return run_folder(folder / "logs")


def weights(run: Path) -> Tensor:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return torch.cat([value.flatten() for value in content["state_dict"].values()])


@pytest.fixture(scope="session")
def alone(once: Once) -> Path:
    return run_folder(once("alone", lambda folder: trained(folder / "run", [*FLAGS, *PLAIN], 1)) / "run/logs")


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_learn_what_one_does(processes: int, alone: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", [*FLAGS, *PLAIN], processes)
    assert (weights(run) - weights(alone)).abs().max() < TOLERANCE
    (row,), (expected,) = (metrics_csv.read(each / "metrics.csv") for each in (run, alone))
    for name in ("train/acc", "val/acc", "train_clean/acc"):
        assert row[name] == expected[name]  # the same count of the same number of images
    assert row["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-6)
    files = [sorted(path.name for path in each.rglob("*") if "events" not in path.name) for each in (run, alone)]
    assert files[0] == files[1]


def unweighted() -> None:
    setattr(Batch, "weight", 1.0)  # noqa: B010 - mypy minds an assignment


def augmented_by_rank() -> None:
    augment = transforms.flip_and_shift
    setattr(datamodule, "flip_and_shift", lambda images, start, *others: augment(images, 0, *others))  # noqa: B010


def sampled_by_pytorch() -> None:
    def part(self: Batches, batch: Tensor, seed: int) -> Part:
        everyone: Any = range(self.size)
        sampler = DistributedSampler[int](everyone, self.processes, self.process, shuffle=True, seed=seed % 2**31)
        size = len(batch) // self.processes
        return Part(torch.tensor(list(sampler)[:size]), self.process * size, len(batch), seed)

    setattr(loader.Batches, "_slice", part)  # noqa: B010


@pytest.mark.slow
@pytest.mark.parametrize("control", [unweighted, augmented_by_rank, sampled_by_pytorch])
def test_the_comparison_finds_what_is_wrong(control: Before, alone: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", [*FLAGS, *PLAIN], 3, {None: (control,)})
    assert (weights(run) - weights(alone)).abs().max() > 10 * TOLERANCE


@pytest.mark.slow
def test_evaluation_is_that_of_one_process(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    run = Path(shutil.copytree(alone, tmp_path / "logs/run"))

    def evaluated(number: int) -> tuple[dict[str, Any], bytes]:
        for command in ("test", "predict"):
            args = [command, f"--ckpt_path={run}", "--trainer.accelerator=cpu"]
            assert {status for status, _ in together(tmp_path, args, number)} == {0}
        return json.loads((run / "test.json").read_text()), (run / "predictions.csv").read_bytes()

    expected, expected_predictions = evaluated(1)
    expected_loss = expected.pop("loss")
    for processes in (2, 3):
        results, predictions = evaluated(processes)
        assert predictions == expected_predictions
        assert results.pop("loss") == pytest.approx(expected_loss, rel=1e-6)  # summed in another order
        assert results == expected


# 15 steps, and a validation, an epoch; with dropout, batch norm, a schedule.
LONG = [*FLAGS, "--data.train_size=300", "--data.batch_size=20", "--model.schedule=cosine", "--trainer.max_epochs=3"]
BARRIER = "lightning.pytorch.strategies.DDPStrategy.barrier"
STEP = f"{MODEL}.training_step"


def killed(target: str, when: When, nth: int = 1, named: str = "") -> Before:
    return partial(at_call, target, partial(send, signal.SIGKILL), nth, named, when)


POINTS = {
    "setup": killed("cifar_lightning.data.datamodule.CIFAR10DataModule.setup", "before"),
    "mid-epoch": killed(STEP, "after", 22),
    "mid-validation": killed(f"{MODEL}.validation_step", "after", 4),
    "saving": killed("cifar_lightning.callbacks.checkpoints.Checkpoints.state_dict", "before", 2),
    "before a barrier": killed(BARRIER, "before", 9),
    "after a barrier": killed(BARRIER, "after", 9),
    "half saved": killed("pathlib.Path.open", "half", 2, ".new.ckpt.tmp"),  # by rank zero alone
}


@pytest.fixture(scope="session")
def two(once: Once) -> Path:
    return run_folder(once("two", lambda folder: trained(folder / "run", LONG, 2)) / "run/logs")


@pytest.mark.slow
def test_two_processes_train_to_the_same_bits(two: Path, tmp_path: Path) -> None:
    assert differences(trained(tmp_path / "run", LONG, 2), two) == []


def again(folder: Path) -> list[str]:
    """Return the command that resumes the run, or starts it where none was begun."""
    runs = [each.parent for each in folder.glob("logs/*/version_*/config.yaml")]
    return ["fit", "--resume", str(runs[0].relative_to(folder))] if runs else LONG


def finish(folder: Path, two: Path) -> None:
    """Train until the run is done, and compare it."""
    assert {status for status, _ in together(folder, again(folder), 2)} == {0}
    assert differences(max(folder.glob("logs/*/version_*")), two) == []


# The gate kills one of the two at each point, by turns.
EITHER = [
    pytest.param(point, rank, marks=() if rank == number % 2 else pytest.mark.nightly)
    for number, point in enumerate(POINTS)
    for rank in range(1 if point == "half saved" else 2)
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "rank"), EITHER)
def test_one_is_killed_and_all_end(point: str, rank: int, two: Path, tmp_path: Path) -> None:
    results = together(tmp_path, LONG, 2, {rank: (POINTS[point],)})
    assert results[rank][0] == -signal.SIGKILL
    assert results[1 - rank][0] != 0
    assert [output.count("error: ") for _, output in results] == ([0, 0] if rank == 0 else [1, 0])
    finish(tmp_path, two)


def no_memory() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def not_finite(nth: int) -> None:
    function, calls = ImageClassifier.training_step, itertools.count(1)

    def step(self: ImageClassifier, batch: Batch, batch_idx: int) -> Tensor:
        return function(self, batch, batch_idx) * (float("nan") if next(calls) == nth else 1.0)

    setattr(ImageClassifier, "training_step", step)  # noqa: B010


FAILURES = {
    "disk full": (
        0,
        partial(at_call, SAVE, partial(full_disk, 30_000), 2),
        "new.ckpt: File too large; free some space",
    ),
    "no memory": (1, partial(at_call, STEP, no_memory, 22), "error: data.batch_size: 20 images do not fit in memory"),
    "not finite": (1, partial(not_finite, 22), "error: train/loss: nan at step 7 of epoch 2"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "failure", "words"), FAILURES.values(), ids=FAILURES)
def test_what_fails_in_one_ends_all_with_one_line(
    rank: int, failure: Before, words: str, two: Path, tmp_path: Path
) -> None:
    results = together(tmp_path, LONG, 2, {rank: (failure,)})
    assert [status for status, _ in results] == [1, 1]
    printed = "".join(output for _, output in results)
    assert words in printed
    assert (
        printed.count("error: ") - printed.count("error: trainer.devices: another process of this run has ended") == 1
    )
    finish(tmp_path, two)


TERMINATE = partial(send, signal.SIGTERM)
MOMENTS = {
    "step 20": partial(at_call, STEP, TERMINATE, 20),
    "step 22": partial(at_call, STEP, TERMINATE, 22),
    # It is agreed already that none has come.
    "as they agree": partial(at_call, "cifar_lightning.utils.processes.Agreement.largest", TERMINATE, 20, when="after"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "rank"),
    [
        *(("step 20", 0), ("step 22", 1), ("as they agree", 0)),
        *(pytest.param(*each, marks=pytest.mark.nightly) for each in (("step 20", 1), ("step 22", 0))),
    ],
)
def test_a_signal_to_one_stops_all_at_the_same_step(moment: str, rank: int, two: Path, tmp_path: Path) -> None:
    results = together(tmp_path, LONG, 2, {rank: (MOMENTS[moment],)})
    assert [status for status, _ in results] == [143, 143]
    assert sum(output.count("stopped and saved") for _, output in results) == 1
    finish(tmp_path, two)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_before_the_first_step_ends_all(rank: int, two: Path, tmp_path: Path) -> None:
    # Lightning's handlers are in force, and ours not yet.
    stop = partial(at_call, "torch.nn.Module.zero_grad", partial(send, signal.SIGTERM))
    results = together(tmp_path, LONG, 2, {rank: (stop,)})
    assert results[rank][0] == 143
    assert results[1 - rank][0] == 1
    finish(tmp_path, two)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_ends_all_that_evaluate(rank: int, two: Path, tmp_path: Path) -> None:
    stop = partial(at_call, f"{MODEL}.test_step", partial(send, signal.SIGTERM))
    results = together(tmp_path, ["test", f"--ckpt_path={two}"], 2, {rank: (stop,)})
    assert results[rank][0] == 143
    assert results[1 - rank][0] == 1


@pytest.mark.nightly
def test_killed_at_random_moments(
    two: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    rng, kills = random.Random(request.config.getoption("kill_seed")), 0
    while kills < int(request.config.getoption("kills")):
        folder = tmp_path_factory.mktemp("killed")
        for _ in range(rng.randint(1, 3)):
            children = start_group(folder, again(folder), 2)
            time.sleep(rng.uniform(0, 6))
            with suppress(ProcessLookupError):
                signum = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                os.kill(children[rng.randrange(2)].pid, signum)
            for child in children:
                child.process.join(20)
                child.process.kill()
            if [child.run()[0] for child in children] == [0, 0]:
                break
            kills += 1
        finish(folder, two)


@pytest.mark.slow
def test_another_number_of_processes_resumes_and_loses_nothing(two: Path, tmp_path: Path) -> None:
    stop = partial(at_call, STEP, partial(send, signal.SIGTERM), 22)
    together(tmp_path, LONG, 2, {0: (stop,)})
    run = run_folder(tmp_path / "logs")
    ((status, output),) = together(tmp_path, ["fit", f"--resume={run}"], 1)
    assert status == 0
    assert "not bit for bit: processes 1 (was 2)" in output
    rows = metrics_csv.read(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:  # of all 300 images, those before the stop included
        assert row["train/acc"] * 300 == pytest.approx(round(row["train/acc"] * 300), abs=1e-4)


def ranks(pid: int) -> list[int]:
    """Return the processes that a process has started and that take part."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(each) for each in found.split()]


def gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("victim", ["first", "second", "Ctrl-C"])
def test_the_processes_of_one_command_end_together(victim: str, two: Path, tmp_path: Path) -> None:
    child = start(tmp_path, [*LONG, "--trainer.devices=2", "--trainer.max_epochs=2000"])
    give_up = time.monotonic() + 120
    while not list(tmp_path.glob("logs/*/version_0/metrics.csv")):
        assert time.monotonic() < give_up, child.output.read_text()
        time.sleep(0.05)
    (other,) = ranks(child.pid)
    pid, signum = {
        "first": (child.pid, signal.SIGKILL),
        "second": (other, signal.SIGKILL),
        "Ctrl-C": (child.pid, signal.SIGINT),
    }[victim]
    os.kill(pid, signum)
    child.process.join(60)
    child.process.kill()  # if it is still there: no test waits for 2,000 epochs
    status, _ = child.run()
    time.sleep(1)
    assert gone(other)
    output = child.output.read_text()  # the other one tells that the first was killed
    assert status == {"first": -signal.SIGKILL, "second": 1, "Ctrl-C": 130}[victim]
    assert output.count("error: ") == (victim != "Ctrl-C")
    if victim != "Ctrl-C":
        killed = f"process {int(victim == 'second')} of 2 was killed by SIGKILL"
        assert f"error: trainer.devices: {killed}; start again (a run: fit --resume" in output


TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nnodes=2",
    "--nproc-per-node=1",
    "--master-addr=127.0.0.1",
]


@pytest.mark.slow
def test_two_agents_of_torchrun_are_two_machines(tmp_path: Path) -> None:
    def launch(args: list[str], port: int) -> None:
        command = [*TORCHRUN, f"--master-port={port}", "-m", "cifar_lightning", *args]
        root = str(Path(__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        agents = [
            subprocess.Popen([*command[:3], f"--node-rank={node}", *command[3:]], cwd=tmp_path, env=environment)
            for node in range(2)
        ]
        assert [agent.wait(120) for agent in agents] == [0, 0]

    flags = [*LONG, "--model.schedule=constant"]
    two = trained(tmp_path / "two", flags, 2)
    launch([*flags, "--trainer.max_steps=30"], 29611)
    run = run_folder(tmp_path / "logs")
    assert len(metrics_csv.read(run / "metrics.csv")) == 2
    launch(["fit", f"--resume={run}", "--trainer.max_steps=-1"], 29612)
    rows, expected = (metrics_csv.read(each / "metrics.csv") for each in (run, two))
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in expected]
    assert torch.equal(weights(run), weights(two))


def as_task(rank: int) -> None:
    """Be a task of `srun --ntasks-per-node=2`, with its variables in place of torchrun's."""
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        del os.environ[name]
    tasks = dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"), "2")
    enter_job(**tasks, SLURM_NNODES="1", SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))


@pytest.mark.slow
def test_the_tasks_of_a_slurm_job_train_one_run_and_it_is_requeued_once(two: Path, tmp_path: Path) -> None:
    tasks: dict[int | None, tuple[Before, ...]] = {rank: (partial(as_task, rank),) for rank in range(2)}
    stop = partial(at_call, STEP, partial(send, signal.SIGUSR1), 20)
    assert [status for status, _ in together(tmp_path, LONG, 2, {**tasks, 1: (*tasks[1], stop)})] == [138, 138]
    assert (tmp_path / REQUEUED).read_text() == "requeue 7\n"
    assert [status for status, _ in together(tmp_path, LONG, 2, tasks)] == [0, 0]
    run = run_folder(tmp_path / "logs")
    (run / "slurm_job.json").unlink()
    assert differences(run, two) == []
