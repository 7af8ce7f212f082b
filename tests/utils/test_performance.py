"""Each setting does what it says, and a run uses it."""

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
import traceback
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cifar_lightning.__main__ import main
from cifar_lightning.data import Batch
from cifar_lightning.models import MLP
from cifar_lightning.utils import performance
from tests.conftest import SMALL, Fit
from tests.faults.processes import start

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"

TINY = ["--model=MLP", "--model.width=4", *SMALL, "--trainer.max_epochs=1"]
SHORT = [*TINY, "--trainer.limit_train_batches=2"]


def faults() -> int:
    """Return how many pages the system gives for buffers of the CNN's size."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [torch.empty(7_000_000).fill_(1) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def denormals(threads: int) -> int:
    torch.set_num_threads(threads)
    return int(torch.count_nonzero((torch.full((1_000_000,), 1e-39) * 1).view(torch.int32)))


def print_effect_of_preparation() -> None:
    found = [faults(), denormals(1)]
    performance.prepare()
    faults()
    print([*found, faults(), denormals(1), denormals(2)])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="not every CPU flushes denormals")
def test_freed_memory_is_kept_and_denormals_are_zero_in_every_thread(tmp_path: Path) -> None:
    # In a process of its own: it cannot be taken back.
    _, output = start(tmp_path, ["--help"], print_effect_of_preparation).run()
    faults, denormals, *prepared = literal_eval(output.splitlines()[0])
    # Above 32 MiB, some versions cannot be told. Counted from the second time on: the first is of new pages anyway, a
    # third of all where the system gives huge ones.
    assert prepared[0] <= faults / 10
    # A second thread is made at the first operation for two, and takes over how the first one computes.
    assert (denormals, *prepared[1:]) == (1_000_000, 0, 0)


TOLD = [(-1, 2**31 - 1), (-2, 2**28), (-3, 2**30)]  # never trim, grow by 256 MiB, a mapping from 1 GiB on


@pytest.mark.parametrize(
    ("system", "library", "largest", "told"),
    [
        *(("darwin", "glibc", 2**30, []), ("win32", "glibc", 2**30, []), ("linux", "musl", 2**30, [])),
        *(("linux", "glibc", 2**30, TOLD), ("linux", "glibc", 2**25, [*TOLD, (-3, 2**25)])),  # some take 32 MiB at most
    ],
)
def test_only_glibc_is_told(
    system: str, library: str, largest: int, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mallopt = Mock(side_effect=lambda option, value: int(option != -3 or value <= largest))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    performance.prepare()
    assert [each.args for each in mallopt.call_args_list] == told


# A control group's quota and period, and what becomes of four threads; None: there is no such file.
QUOTAS: dict[str | None, int] = {
    **dict.fromkeys(["max 100000\n", "", "1 2 3\n", "a lot of it\n", "\xff\xfe", None], 4),
    **{"50000 100000\n": 1, "200000 100000\n": 2, "399999 100000\n": 3, "400000 100000\n": 4, "100000 50000\n": 2},
}


@pytest.mark.parametrize("quota", QUOTAS, ids=repr)
def test_threads_stay_within_the_quota(quota: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, threads = tmp_path / "cpu.max", torch.get_num_threads()
    if quota is not None:
        file.write_text(quota, encoding="latin-1")

    def prepared(before: int) -> int:
        torch.set_num_threads(before)
        performance.prepare(file)
        return torch.get_num_threads()

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = [prepared(1), prepared(4)]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    found.append(prepared(4))
    torch.set_num_threads(threads)
    assert found == [1, QUOTAS[quota], 4]


def test_the_driver_is_checked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NVML, "1")  # as Lightning sets it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    performance.prepare()
    assert os.environ[NVML] == "1"


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="checks go on where there is a GPU")
def test_a_step_of_the_optimizer_looks_for_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MLP(width=2)
    optimizer = model.new_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    monkeypatch.setenv(NVML, "1")
    for libraries in (["libnvidia-ml.so.1"], []):
        with monkeypatch.context() as patch:
            patch.setattr(ctypes, "CDLL", load := Mock(side_effect=OSError))
            optimizer.step()
        assert [call.args[0] for call in load.call_args_list] == libraries
        performance.prepare()


def test_a_run_trains_on_a_still_heap_that_moves_again(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(MLP, "on_train_start", lambda self: counts.append(gc.get_freeze_count()))
    assert main(["fit", *SHORT]) == 0
    assert counts[0] > 0
    assert gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError), performance.still_heap():
        _ = 1 / 0
    assert gc.get_freeze_count() == 0


def cores() -> list[list[int]]:
    return [sorted(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()]


def in_child() -> Any:
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, str(sorted(os.sched_getaffinity(0))).encode())
        os._exit(0)
    os.wait()
    return literal_eval(os.read(reader, 1000).decode())


def print_cores(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    performance.prepare()
    before = cores()
    with performance.own_cores():
        torch.ones(2**20)
        found = [before, cores(), in_child()]
    print([*found, cores()])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bind no thread")
@pytest.mark.parametrize("fewer", [0, 1])
def test_each_thread_has_a_core_where_there_is_one_for_each(fewer: int, tmp_path: Path) -> None:
    # In a process of its own: this one has started threads.
    all_cores = sorted(os.sched_getaffinity(0))
    _, output = start(tmp_path, ["--help"], partial(print_cores, max(1, len(all_cores) - fewer))).run()
    before, within, child, after = literal_eval(output.splitlines()[0])
    bound = len(all_cores) > 1 and not fewer
    assert sorted(each for each in within if len(each) == 1 < len(all_cores)) == (
        [[core] for core in all_cores] if bound else []
    )
    assert [each for each in [*before, *after, child] if each != all_cores] == []


def test_a_run_on_the_cpu_binds_its_threads(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    @contextlib.contextmanager
    def own_cores() -> Iterator[None]:
        runs.append("begins")
        yield
        runs.append("ended")

    monkeypatch.setattr(performance, "own_cores", own_cores)
    monkeypatch.setattr(MLP, "on_train_start", lambda self: runs.append("trains"))
    assert main(["fit", *SHORT]) == 0
    assert runs == ["begins", "trains", "ended"]
    with performance.steady(torch.device("cuda")):
        assert len(runs) == 3


@pytest.mark.parametrize(
    ("before", "after"), [({}, "10000"), ({"GOMP_SPINCOUNT": "3"}, "3"), ({"OMP_WAIT_POLICY": "passive"}, None)]
)
def test_waiting_threads_soon_sleep_unless_a_person_said_otherwise(
    before: dict[str, str], after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    assert main(["--help"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == after


def test_every_run_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(performance, "prepare", lambda: done.append("prepared"))
    assert main(["fit", "--bogus=3"]) == 2
    assert done == ["prepared"]


class Reads(TorchFunctionMode):
    """Counts, by place, what hands a number from a tensor to Python: on a GPU it waits for all that was begun."""

    METHODS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in self.METHODS:
            stack = [f"{Path(frame.filename).name}:{frame.name}" for frame in traceback.extract_stack(limit=4)[:-1]]
            self.found[f"{func.__name__} {' '.join(stack)}"] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("waits", [False, True])
def test_no_step_waits_for_a_number(waits: bool, fit: Fit, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = MLP.training_step

    def reading(self: MLP, batch: Batch, batch_idx: int) -> Tensor:
        loss = step(self, batch, batch_idx)
        loss.item()
        return loss

    def reads_in(steps: int) -> Counter[str]:
        reads = Reads()
        with reads:
            fit(empty_folder / str(steps), [*TINY, "--data.batch_size=50", f"--trainer.limit_train_batches={steps}"])
        return reads.found

    if waits:  # a step that does is found
        monkeypatch.setattr(MLP, "training_step", reading)
    few, many = reads_in(4), reads_in(12)
    assert few.total() > 0  # an epoch's own metrics
    assert few - many == Counter()
    assert [(name.split()[0], count) for name, count in (many - few).items()] == [("item", 8)] * waits
