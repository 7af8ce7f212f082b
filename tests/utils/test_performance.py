"""Each setting does what it says, and a run uses it."""

import ctypes
import gc
import os
import platform
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from torch import Tensor

from cifar_lightning.__main__ import main
from cifar_lightning.data import ImageSet
from cifar_lightning.models import MLP, ImageClassifier
from cifar_lightning.utils import performance
from tests.conftest import SMALL, Fit

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"

TINY = ["--model=MLP", "--model.width=4", *SMALL, "--trainer.max_epochs=1"]
SHORT = [*TINY, "--trainer.limit_train_batches=2"]


PREPARED = """
import resource
import torch
from cifar_lightning.utils import performance

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.empty(7_000_000).fill_(1) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def denormals(threads):
    torch.set_num_threads(threads)
    return int(torch.count_nonzero((torch.full((10_000_000,), 1e-39) * 1).view(torch.int32)))

print(faults(), denormals(1), performance.prepare() or faults() and faults(), denormals(1), denormals(2))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="not every CPU flushes denormals")
def test_freed_memory_is_kept_and_denormals_are_zero_in_every_thread() -> None:
    # In a process of its own: it cannot be taken back.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", PREPARED], env=environment, capture_output=True, check=True)
    faults, denormals, *prepared = map(int, result.stdout.split())
    # Buffers of the CNN's size: above 32 MiB, some versions cannot be told. Counted from the second time on: the first
    # is of new pages anyway, a third of all where the system gives huge ones.
    assert prepared[0] <= faults / 10
    # A second thread is made at the first operation for two, and takes over how the first one computes.
    assert (denormals, *prepared[1:]) == (10_000_000, 0, 0)


NEVER_TRIM, GROW = (-1, 2**31 - 1), (-2, 2**28)


@pytest.mark.parametrize(
    ("system", "library", "largest", "told"),
    [
        *((system, "glibc", 2**30, []) for system in ("darwin", "win32")),
        ("linux", "musl", 2**30, []),
        ("linux", "", 2**30, []),
        ("linux", "glibc", 2**30, [NEVER_TRIM, GROW, (-3, 2**30)]),
        ("linux", "glibc", 2**25, [NEVER_TRIM, GROW, (-3, 2**30), (-3, 2**25)]),  # a version that takes 32 MiB at most
    ],
)
def test_only_glibc_is_told(
    system: str, library: str, largest: int, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        calls.append((option, value))
        return int(option != -3 or value <= largest)

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    performance.prepare()
    assert calls == told


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# A control group's quota and period, and what becomes of four threads; None: there is no such file.
QUOTAS: dict[str | None, int] = {
    **dict.fromkeys(["max 100000\n", "", "1 2 3\n", "a lot of it\n", "\xff\xfe", None], 4),
    **{"50000 100000\n": 1, "200000 100000\n": 2, "399999 100000\n": 3, "400000 100000\n": 4, "100000 50000\n": 2},
}


@pytest.mark.parametrize("quota", QUOTAS, ids=repr)
def test_threads_stay_within_the_quota(
    quota: str | None, threads: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota, encoding="latin-1")
    for before, after in ((1, 1), (4, QUOTAS[quota])):
        threads(before)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        performance.prepare(file)
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        performance.prepare(file)
        assert torch.get_num_threads() == after


@pytest.mark.parametrize("there", [True, False])
def test_the_driver_check_is_skipped_where_there_is_none(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NVML, "1")  # as Lightning sets it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    performance.prepare()
    assert os.environ[NVML] == ("1" if there else "0")


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="checks go on where there is a GPU")
def test_a_step_of_the_optimizer_looks_for_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(name: str) -> None:
        loaded.append(name)
        raise OSError(name)

    model, loaded = MLP(width=2), list[str]()
    optimizer = model.new_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for value, expected in {"1": ["libnvidia-ml.so.1"], "0": []}.items():
        monkeypatch.setenv(NVML, value)
        with monkeypatch.context() as patch:
            patch.setattr(ctypes, "CDLL", loads)
            optimizer.step()
        assert loaded == expected
        loaded.clear()


def test_the_heap_is_still_inside_and_after_an_error_not() -> None:
    with performance.still_heap():
        assert gc.get_freeze_count() > 0
    with pytest.raises(ZeroDivisionError), performance.still_heap():
        _ = 1 / 0
    assert gc.get_freeze_count() == 0


def test_a_run_trains_on_a_still_heap(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(MLP, "on_train_start", lambda self: counts.append(gc.get_freeze_count()))
    assert main(["fit", *SHORT]) == 0
    assert counts[0] > 0
    assert gc.get_freeze_count() == 0


def test_every_run_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(performance, "prepare", lambda: done.append("prepared"))
    assert main(["fit", "--bogus=3"]) == 2
    assert done == ["prepared"]


Hardware = Callable[..., None]


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Hardware:
    """Pretends to run on what is named: cuda, its bf16, mps, and a CPU's avx512_bf16 or amx_bf16."""

    def pretend(*there: str) -> None:
        assert set(there) <= {"cuda", "bf16", "mps", "avx512_bf16", "amx_bf16"}
        monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: "cuda" in there))
        monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: "mps" in there))
        # Where there is none an emulation is, for those who ask for one.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or "bf16" in there
        )
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(["avx512_f", *there], True))

    return pretend


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other names")
def test_pytorch_tells_the_capabilities_that_decide() -> None:
    assert {"avx512_bf16", "amx_bf16"} <= set(torch.cpu.get_capabilities())


BF16, FLOAT32 = "bf16-mixed", "32-true"

# Accelerator asked for, what is there, the precision, and what its reason names.
PRECISIONS = [
    *((accelerator, (), FLOAT32, "CPU") for accelerator in ("auto", "cpu")),
    *((accelerator, (kind,), BF16, "CPU") for accelerator in ("auto", "cpu") for kind in ("avx512_bf16", "amx_bf16")),
    *((accelerator, ("cuda", "bf16"), BF16, "GPU") for accelerator in ("auto", "gpu", "cuda")),
    # A GPU without: what the CPU can does not matter.
    *((accelerator, ("cuda", "amx_bf16"), FLOAT32, "GPU") for accelerator in ("auto", "gpu", "cuda")),
    *((accelerator, ("mps", "amx_bf16"), FLOAT32, "Apple") for accelerator in ("auto", "gpu", "mps")),
    # The CPU where it is asked for: what the GPU can does not matter.
    ("cpu", ("cuda", "bf16"), FLOAT32, "CPU"),
    ("cpu", ("cuda", "amx_bf16"), BF16, "CPU"),
    ("cpu", ("mps", "avx512_bf16"), BF16, "CPU"),
    ("mps", ("mps", "cuda", "bf16"), FLOAT32, "Apple"),
]


@pytest.mark.parametrize(("accelerator", "there", "name", "reason"), PRECISIONS)
def test_precision(accelerator: str, there: tuple[str, ...], name: str, reason: str, hardware: Hardware) -> None:
    hardware(*there)
    precision, why = performance.best_precision(accelerator)
    assert precision == name
    assert reason in why


def test_without_the_list_of_capabilities_the_precision_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # PyTorch 2.10
    assert performance.best_precision("cpu")[0] == FLOAT32


@pytest.fixture
def computed_in(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The types in which a run's networks compute their logits."""
    found: set[torch.dtype] = set()
    forward = ImageClassifier.forward

    def noting(self: ImageClassifier, images: Tensor) -> Tensor:
        found.add(self.network(images).dtype)
        return forward(self, images)

    monkeypatch.setattr(ImageClassifier, "forward", noting)
    return found


@pytest.mark.parametrize(("there", "asked"), [(["amx_bf16"], None), ([], None), (["amx_bf16"], FLOAT32), ([], BF16)])
def test_a_run_takes_the_best_precision_and_says_so_unless_another_is_asked_for(
    there: list[str],
    asked: str | None,
    hardware: Hardware,
    computed_in: set[torch.dtype],
    fit: Fit,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hardware(*there)
    best, why = performance.best_precision("cpu")
    run = fit(empty_folder, [*SHORT, *([f"--trainer.precision={asked}"] if asked else [])])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision")]
    assert lines == ([] if asked else [f"precision {best}: {why} (--trainer.precision chooses another)"])
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == (asked or best)
    dtype = {BF16: torch.bfloat16, FLOAT32: torch.float32}[asked or best]
    assert computed_in == {dtype}
    # A checkpoint is tested as it was trained, on whatever hardware.
    computed_in.clear()
    hardware(*([] if there else ["amx_bf16"]))
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    assert "\nprecision" not in capsys.readouterr().out
    assert computed_in == {dtype}


# Methods that hand a number from a tensor to Python; on a GPU each waits for all that was begun.
READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Where tensors are read, and how often; a read inside of another counts as well."""
    found: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            stack = [f"{Path(frame.filename).name}:{frame.name}" for frame in traceback.extract_stack(limit=4)[:-1]]
            found[f"{name} {' '.join(stack)}"] += 1
            return real(self, *args, **kwargs)

        return read

    for name in READS:
        monkeypatch.setattr(Tensor, name, counting(name))
    return found


@pytest.mark.parametrize("waits", [False, True])
def test_no_step_waits_for_a_number(
    waits: bool, reads: Counter[str], fit: Fit, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = MLP.training_step

    def reading(self: MLP, batch: ImageSet, batch_idx: int) -> Tensor:
        loss = step(self, batch, batch_idx)
        loss.item()
        return loss

    def reads_in(steps: int) -> Counter[str]:
        reads.clear()
        fit(empty_folder / str(steps), [*TINY, "--data.batch_size=50", f"--trainer.limit_train_batches={steps}"])
        return Counter(reads)

    if waits:  # a step that does is found
        monkeypatch.setattr(MLP, "training_step", reading)
    few, many = reads_in(4), reads_in(12)
    assert few.total() > 0  # an epoch's own metrics
    assert few - many == Counter()
    assert [(name.split()[0], count) for name, count in (many - few).items()] == [("item", 8)] * waits
