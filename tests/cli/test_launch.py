"""Which processes a command asks for, and which of them tells what went wrong."""

import os
from pathlib import Path

import pytest
import torch

from cifar_lightning.cli import launch
from cifar_lightning.cli.error_messages import explain
from cifar_lightning.errors import InputError, RunError, SharedError

GLOO = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer")
NCCL = RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:2395, remote process exited or there was a network error")
STORE = torch.distributed.DistStoreError("wait timeout after 1800000ms, keys: /default_pg/0/")
OWN = [RuntimeError("the weights can't be restored"), RuntimeError("a store of images"), ValueError("gloo")]


def test_what_comes_of_the_end_of_another_process_is_told_from_what_does_not() -> None:
    assert [launch.lost_connection(error) for error in (GLOO, NCCL, STORE)] == [True] * 3
    assert [launch.lost_connection(error) for error in OWN] == [False] * 3
    assert "another process of this run has ended" in explain(GLOO)[0]
    assert "another process" not in explain(OWN[0])[0]


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_tells_what_all_find(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", str(rank))
    field = ("field", "cause", "remedy")
    shared = [(InputError(*field), 2), (SharedError(*field), 1), (GLOO, 1), (ValueError("an argument"), 2)]
    assert [launch.told(error, status) for error, status in shared] == [rank == 1] * 4
    assert not launch.told(RunError(*field), 1)  # of memory, say: found by one alone
    assert not launch.told(OWN[0], 1)
    assert launch.told(launch.ProcessError(1, 2, status=1), 1) == (rank == 0)
    for status in (-9, 2, 3, 143):  # which could not tell, or did not
        assert not launch.told(launch.ProcessError(1, 2, status=status), 1)


def test_the_status_is_one_that_a_command_returns() -> None:
    statuses = {-9: 1, 1: 1, 2: 2, 3: 1, 130: 130, 143: 143}
    assert {status: launch.ProcessError(1, 2, status).status for status in statuses} == statuses


# In the first of two processes: its own error, though the other ends, too, as it finds the same.
@pytest.mark.parametrize(
    "error", [GLOO, *OWN, InputError("field", "cause", "remedy"), PermissionError("logs")], ids=repr
)
def test_an_error_is_told_unless_it_comes_of_the_end_of_another(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = launch.ProcessError(1, 2, status=2)
    monkeypatch.setattr(launch.Processes, "failure", lambda self, seconds: failure)
    with pytest.raises(type(failure if error is GLOO else error)) as raised, launch.processes(["fit"]):
        raise error
    assert raised.value is (failure if error is GLOO else error)


def test_devices_and_nodes_are_known_before_anything_is_imported(tmp_path: Path) -> None:
    file, run = tmp_path / "a.yaml", tmp_path / "run"
    run.mkdir()
    file.write_text("trainer: {devices: 3}")
    (run / "config.yaml").write_text("trainer: {devices: '4', num_nodes: 2}")
    for args, expected in {
        (): (1, 1),
        ("--trainer.devices", "2"): (2, 1),
        ("--trainer.devices=2", "--trainer.num_nodes=3"): (2, 3),
        (f"--config={file}",): (3, 1),
        (f"--config={file}", "--trainer.devices=2"): (2, 1),
        (f"--resume={run}",): (4, 2),
        ("--trainer.devices=auto",): (1, 1),  # for the real parser, and PyTorch
        ("--trainer.devices=[0,1]",): (1, 1),
        ("--config=none.yaml", "--trainer.devices=2"): (1, 1),
    }.items():
        assert launch._asked(["fit", *args]) == expected, args


def test_machines_must_know_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    with pytest.raises(InputError, match="nothing says where they meet"), launch.processes(["fit"]) as processes:
        processes.start(1, nodes=2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("NODE_RANK", "1")
    with launch.processes(["fit"]) as processes:
        processes.start(1, nodes=2)
        assert (os.environ["RANK"], os.environ["LOCAL_RANK"], os.environ["MASTER_PORT"]) == ("1", "0", "1")
    assert {name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")} == {
        name: before.get(name) for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    }
