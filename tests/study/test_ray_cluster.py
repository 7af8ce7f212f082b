"""A study on Ray: on a real cluster of two nodes, on loopback, one of which dies."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import cluster_utils

from cifar_lightning.errors import InputError
from cifar_lightning.results import store
from cifar_lightning.study import config
from cifar_lightning.study.plan import Run, plan
from cifar_lightning.study.progress import EPOCH
from cifar_lightning.study.ray_executor import Ray
from cifar_lightning.utils import files
from tests.conftest import Once, ray_alone
from tests.faults.processes import Child
from tests.study.in_step import EPOCHS_TOGETHER, epochs_of_both
from tests.study.test_kills import check_same, end, is_saved, start, until, write_config

# Three runs, one of the first two on each node, neither of which ends before both are stopped; the last fails.
GRID = """
set:
  {data.source: synthetic, data.train_size: 2000, data.val_size: 500, data.train_clean_size: 200, model.dropout: 0.5,
   trainer.callbacks: [{class_path: tests.study.in_step.InStep}]}
experiments:
  mlp: {base: mlp.yaml, epochs: 8, seeds: [0, 1], test: true}
  rate: {base: mlp.yaml, epochs: 1, set: {model.lr: 1.0e+30}}
"""
EPOCHS = 8
MARK = "OF_THE_SECOND_NODE"  # in the environment of each process of that node
# What `srun ray start` leaves there on two nodes.
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "study", "SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "1"}
NODE = {"num_cpus": 1, "include_dashboard": False, "env_vars": SLURM}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc; others have no 127.0.0.2"),
]


class Nodes:
    """Nodes of one processor each: the first for all tests, and a second for each test, which may kill it."""

    def __init__(self) -> None:
        # Ray takes 127.0.0.1 for the machine's outer address, where nobody listens. By default it would believe for 13
        # seconds that a killed node is alive, and give it tasks.
        own = {"node_ip_address": "127.0.0.2", "_system_config": {"health_check_period_ms": 500}}
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE | own)
        self.address = str(self.cluster.address)

    def add(self) -> Any:
        marked = {"node_ip_address": "127.0.0.3", "env_vars": SLURM | {MARK: str(os.getpid())}}
        return self.cluster.add_node(**NODE | marked)


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    with ray_alone(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        nodes = Nodes()
        yield nodes
        nodes.cluster.shutdown()


@pytest.fixture
def nodes(head: Nodes) -> Iterator[Nodes]:
    second = head.add()
    yield head
    head.cluster.remove_node(second)
    head.cluster.wait_for_nodes()  # until it is gone for the next test, too


@pytest.fixture(scope="module")
def local(once: Once) -> Path:
    return once("local", lambda folder: end(start(folder, "--workers=2", grid=GRID), 1)) / "out"


def on_ray(folder: Path, nodes: Nodes, *more: str) -> Child:
    return start(folder, "--launcher=ray", f"--address={nodes.address}", *more, grid=GRID)


def of_second_node(command: str = "") -> list[int]:
    """Its processes, or those whose command has this in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if command in (path / "cmdline").read_text() and f"{MARK}={os.getpid()}" in (path / "environ").read_text():
                found.append(int(path.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Those of the study, in the working directory."""
    write_config(tmp_path, GRID)
    monkeypatch.chdir(tmp_path)
    return plan(config.read(Path("grid.yaml")), Path("out")).runs


def tries(lines: list[str]) -> list[list[int]]:
    """The epochs of each try of a run by its log, in which the next one names the checkpoint that it resumes from."""
    found = list[list[int]]([[]])
    for line in lines:
        if re.search(r"(last|interrupted).ckpt: MLP after epoch", line):
            found.append([])
        if epoch := EPOCH.match(line):
            found[-1].append(int(epoch[1]))
    return found


# A node dies with its run, after a line and before the checkpoint perhaps. Without its worker a run saves.
@pytest.mark.parametrize(("dies", "lost_epochs"), [("node", 1), ("worker", 0)])
def test_what_is_lost_resumes_from_its_checkpoint(
    dies: str,
    lost_epochs: int,
    nodes: Nodes,
    runs: list[Run],
    tmp_path: Path,
    local: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines, ends, killed = defaultdict[str, list[str]](list), defaultdict[str, list[int]](list), False
    with store.own(Path("out")):
        for run, event in Ray(nodes.address)(runs):
            if isinstance(event, int):
                ends[run.title].append(event)
            else:
                lines[run.title].append(event)
            if not killed and epochs_of_both(Path("out")) >= EPOCHS_TOGETHER:
                for pid in of_second_node("" if dies == "node" else "ray::_execute"):
                    os.kill(pid, signal.SIGKILL)
                killed = True
    out, err = capfd.readouterr()
    assert out == ""
    assert err.endswith(": its Ray worker was lost; another resumes it\n")
    assert list(ends.values()) in ([[0], [0], [1]], [[0], [1], [0]])
    for run in runs[:2]:
        first, *again = tries(lines[run.title])
        if err.startswith(run.title):
            (second,) = again
            assert second == [*range(second[0], EPOCHS + 1)]
            assert second[0] > max(EPOCHS_TOGETHER, *first) - lost_epochs  # lines may be lost, too
        else:
            assert first == [*range(1, EPOCHS + 1)]
            assert again == []
    end(start(tmp_path, grid=GRID), 1)
    check_same(Path("out"), local)


def check_end(study: Child, output: Path, local: Path) -> None:
    """Assert that a study that has all three runs to do comes to the results of one machine."""
    out, err = end(study, 1)
    check_same(output, local)
    assert sorted(line[:2] for line in out.splitlines()[:6]) == ["$ "] * 3 + ["[1", "[2", "[3"]
    assert [line[:6] for line in err.splitlines()] == ["error:"]  # of the run that fails


@pytest.mark.nightly  # the next test's, stopped at no moment
def test_two_nodes_give_the_results_of_one_machine(nodes: Nodes, tmp_path: Path, local: Path) -> None:
    check_end(on_ray(tmp_path, nodes), tmp_path / "out", local)


@pytest.mark.parametrize(
    ("signum", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.nightly),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.nightly),
    ],
)
def test_stopped(signum: signal.Signals, status: int, nodes: Nodes, tmp_path: Path, local: Path) -> None:
    study, output = on_ray(tmp_path, nodes), tmp_path / "out"
    until(lambda: epochs_of_both(output) >= EPOCHS_TOGETHER, study)
    assert of_second_node("forkserver")
    os.killpg(study.pid, signum) if signum == signal.SIGINT else os.kill(study.pid, signum)
    _, err = end(study, status)
    for run in output.glob("mlp/*/version_0"):
        if signum == signal.SIGKILL:  # its runs notice a moment later
            with files.locked(run, waiting="until the run has ended"):
                pass
        assert is_saved(run)
    assert epochs_of_both(output) < EPOCHS
    assert signum == signal.SIGKILL or err.splitlines()[-1].endswith(
        "the study was stopped; the same command resumes it"
    )
    check_end(on_ray(tmp_path, nodes), output, local)


def test_runs_that_are_too_large_are_refused(head: Nodes, runs: list[Run]) -> None:
    with pytest.raises(InputError, match=r"\(2, 0.5\) is not possible; use what a node has: up to 1 and 0"):
        next(Ray(head.address, cpus=2, gpus=0.5)(runs))


@pytest.mark.parametrize("there", ["true", 'mkdir "$0"/out'])
def test_a_node_that_does_not_share_the_folder_is_named(
    there: str, head: Nodes, runs: list[Run], tmp_path: Path
) -> None:
    # In a mount namespace of its own, the node has another disk in the folder's place: empty, or with the same names.
    mount = f'mount -t tmpfs none "$0" && {there} && exec "$@"'
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={head.address}", "--num-cpus=1", "--block"]
    apart = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path), *ray]
    with subprocess.Popen(
        [*apart, "--node-ip-address=127.0.0.4"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as node:
        try:
            assert node.stdout
            if not any("Ray runtime started" in line for line in node.stdout):
                pytest.skip("this system lets nobody have a mount namespace")
            with store.own(Path("out")), pytest.raises(InputError) as error:
                next(Ray(head.address)(runs))
            where = f"node {socket.gethostname()} (127.0.0.4): {tmp_path / 'out'} is not there, or not locked as it is "
            assert str(error.value).startswith(where)
        finally:
            os.killpg(node.pid, signal.SIGKILL)
            head.cluster.wait_for_nodes()
