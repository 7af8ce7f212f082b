"""Each trick does what it says, and a run uses them."""

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
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.models import MLP, ImageClassifier
from cifar_lightning.utils import performance as speed
from tests.conftest import SMALL, Fit

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"

TINY = ["--model=MLP", "--model.width=4", *SMALL, "--trainer.max_epochs=1"]
SHORT = [*TINY, "--trainer.limit_train_batches=2"]


def python(code: str) -> list[int]:
    """The numbers that a process of its own prints: what is tried here cannot be taken back."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"import torch; from cifar_lightning import speed\n{code}"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [int(word) for word in result.stdout.split()]


FAULTS = """
import resource

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.empty(7_000_000).fill_(1) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), int(speed.keep_freed_memory()), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_kept() -> None:
    # Buffers of the CNN's size: above 32 MiB, some versions cannot be told. The first of twenty rounds is new anyway.
    without, done, kept = python(FAULTS)
    assert done == 1
    assert kept <= without / 10


@pytest.mark.parametrize(("system", "library"), [("darwin", ""), ("win32", ""), ("linux", ""), ("linux", "musl")])
def test_no_other_system_is_touched(system: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setattr(ctypes, "CDLL", loaded.append)
    assert speed.keep_freed_memory() is False
    assert loaded == []


@pytest.mark.parametrize(
    ("refused", "done"),
    [
        (lambda option, value: False, True),
        (lambda option, value: value == 2**30, True),  # a version that knows 32 MiB at most
        (lambda option, value: option == -1, False),
        (lambda option, value: option == -2, False),
        (lambda option, value: option == -3, False),
    ],
)
def test_a_refusal_is_told(refused: Callable[[int, int], bool], done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    glibc = SimpleNamespace(mallopt=lambda option, value: int(not refused(option, value)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: glibc)
    assert speed.keep_freed_memory() is done


DENORMALS = """
def left(threads):
    torch.set_num_threads(threads)
    return int(torch.count_nonzero((torch.full((10_000_000,), 1e-39) * 1).view(torch.int32)))

print(left(1), int(speed.flush_denormals()), left(1), left(2))
"""


def test_denormals_are_zero_in_every_thread() -> None:
    # A second thread is made at the first operation for two, and takes over how the first one computes.
    before, able, same_thread, other_thread = python(DENORMALS)
    assert before == 10_000_000
    assert same_thread == (0 if able else before)
    if able and sys.platform == "linux":
        assert other_thread == 0


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# A control group's quota and period, and what becomes of one and of four threads.
QUOTAS = {
    "max 100000\n": (1, 4),
    "150000 100000\n": (1, 1),
    "50000 100000\n": (1, 1),
    "200000 100000\n": (1, 2),
    "399999 100000\n": (1, 3),
    "400000 100000\n": (1, 4),
    "800000 100000\n": (1, 4),
    "100000 50000\n": (1, 2),
    "": (1, 4),
    "100000\n": (1, 4),
    "1 2 3\n": (1, 4),
    "a lot of it\n": (1, 4),
    "\xff\xfe": (1, 4),
}


@pytest.mark.parametrize("quota", QUOTAS, ids=repr)
def test_threads_stay_within_the_quota(
    quota: str, threads: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota, encoding="latin-1")
    for before, after in zip((1, 4), QUOTAS[quota], strict=True):
        threads(before)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert speed.cap_threads(file) == torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert speed.cap_threads(file) == torch.get_num_threads() == after


@pytest.mark.parametrize("name", ["missing", "."])
def test_without_a_quota_threads_stay_as_they_are(
    name: str, threads: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads(3)
    assert speed.cap_threads(tmp_path / name) == torch.get_num_threads() == 3


@pytest.mark.parametrize("given", ["1", "0", None])
@pytest.mark.parametrize("there", [True, False])
def test_the_driver_check_is_skipped_where_there_is_none(
    there: bool, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NVML, given or "")
    if given is None:
        monkeypatch.delenv(NVML)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    speed.skip_driver_checks()
    assert os.environ.get(NVML) == (given if there else "0")


def driver_checks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often five steps of an optimiser load a library or ask one for devices."""
    model, calls = MLP(width=2), Counter[str]()
    optimizer = model.new_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((ctypes, "CDLL"), (torch.cuda, "_device_count_nvml")):
            patch.setattr(owner, name, counting(name, getattr(owner, name)))
        for _ in range(5):
            optimizer.step()
    return calls


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this PyTorch knows no CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="checks go on where there is a GPU")
def test_a_step_of_the_optimiser_looks_for_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NVML, "1")  # as Lightning sets it
    assert driver_checks(monkeypatch)["_device_count_nvml"] == 5
    speed.skip_driver_checks()
    assert driver_checks(monkeypatch) == {}


def test_the_heap_is_still_inside_and_after_an_error_not() -> None:
    assert gc.get_freeze_count() == 0
    with speed.still_heap():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError), speed.still_heap():
        _ = 1 / 0
    assert gc.get_freeze_count() == 0


def test_no_profiler_nests() -> None:
    profiler = speed.NoProfiler()
    with profiler.profile("outer") as outer, profiler.profile("inner") as inner:
        assert outer is inner is None
    with pytest.raises(ZeroDivisionError), profiler.profile("an error passes"):
        _ = 1 / 0
    assert profiler.summary() == ""


@pytest.mark.parametrize(("flags", "kind"), [([], "NoProfiler"), (["--trainer.profiler=simple"], "SimpleProfiler")])
def test_the_trainer_takes_it_unless_another_is_asked_for(
    flags: list[str], kind: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []
    monkeypatch.setattr(MLP, "on_train_start", lambda self: kinds.append(type(self.trainer.profiler).__name__))
    assert main(["fit", *SHORT, *flags]) == 0
    assert kinds == [kind]


def test_a_run_goes_on_a_still_heap(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(MLP, "on_train_start", lambda self: counts.append(gc.get_freeze_count()))
    assert main(["fit", *SHORT]) == 0
    assert counts[0] > 0
    assert gc.get_freeze_count() == 0


def test_every_run_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    names = ["keep_freed_memory", "flush_denormals", "cap_threads", "skip_driver_checks"]
    for name in names:
        monkeypatch.setattr(speed, name, lambda name=name: done.append(name))
    assert main(["fit", "--bogus=3"]) == 2
    assert done == names


Hardware = Callable[..., None]


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Hardware:
    """Pretends to run on what is named: cuda, its bf16, mps, and a CPU's avx512_bf16 or amx."""

    def pretend(*there: str) -> None:
        assert set(there) <= {"cuda", "bf16", "mps", "avx512_bf16", "amx"}
        monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: "cuda" in there))
        monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: "mps" in there))
        # Where there is none an emulation is, for those who ask for one.
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or "bf16" in there
        )
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "avx512_bf16" in there)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx" in there)

    return pretend


BF16, FLOAT32 = "bf16-mixed", "32-true"

# Accelerator asked for, what is there, the precision, and what its reason names.
PRECISIONS = [
    *((accelerator, (), FLOAT32, "CPU") for accelerator in ("auto", "cpu")),
    *((accelerator, (kind,), BF16, "CPU") for accelerator in ("auto", "cpu") for kind in ("avx512_bf16", "amx")),
    *((accelerator, ("cuda", "bf16"), BF16, "GPU") for accelerator in ("auto", "gpu", "cuda")),
    # A GPU without: what the CPU can does not matter.
    *((accelerator, ("cuda", "amx"), FLOAT32, "GPU") for accelerator in ("auto", "gpu", "cuda")),
    *((accelerator, ("mps", "amx"), FLOAT32, "Apple") for accelerator in ("auto", "gpu", "mps")),
    # The CPU where it is asked for: what the GPU can does not matter.
    ("cpu", ("cuda", "bf16"), FLOAT32, "CPU"),
    ("cpu", ("cuda", "amx"), BF16, "CPU"),
    ("cpu", ("mps", "avx512_bf16"), BF16, "CPU"),
    ("mps", ("mps", "cuda", "bf16"), FLOAT32, "Apple"),
]


@pytest.mark.parametrize(("accelerator", "there", "name", "reason"), PRECISIONS)
def test_precision(accelerator: str, there: tuple[str, ...], name: str, reason: str, hardware: Hardware) -> None:
    hardware(*there)
    best = speed.best_precision(accelerator)
    assert best.name == name
    assert reason in best.reason


@pytest.fixture
def computed_in(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The types in which a run's networks return their logits."""
    found: set[torch.dtype] = set()
    forward = ImageClassifier.forward

    def noting(self: ImageClassifier, images: Tensor) -> Tensor:
        logits = forward(self, images)
        found.add(logits.dtype)
        return logits

    monkeypatch.setattr(ImageClassifier, "forward", noting)
    return found


Dtypes = set[torch.dtype]


def precision_of(run: Path) -> Any:
    return yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("precision")]


@pytest.mark.parametrize(("there", "name", "dtype"), [(["amx"], BF16, torch.bfloat16), ([], FLOAT32, torch.float32)])
def test_a_run_takes_the_best_precision_and_says_so(
    there: list[str],
    name: str,
    dtype: torch.dtype,
    hardware: Hardware,
    computed_in: Dtypes,
    fit: Fit,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hardware(*there)
    run = fit(empty_folder, SHORT)
    (line,) = lines_of(capsys)
    assert line == f"precision {name}: {speed.best_precision('cpu').reason} (--trainer.precision chooses another)"
    assert precision_of(run) == name
    assert computed_in == {dtype}
    # A checkpoint is tested as it was trained, on whatever hardware.
    computed_in.clear()
    hardware(*(["amx"] if name == FLOAT32 else []))
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    assert lines_of(capsys) == []
    assert computed_in == {dtype}


@pytest.mark.parametrize(("asked", "dtype"), [(FLOAT32, torch.float32), (BF16, torch.bfloat16)])
def test_what_was_asked_for_wins_silently(
    asked: str,
    dtype: torch.dtype,
    hardware: Hardware,
    computed_in: Dtypes,
    fit: Fit,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hardware(*(["amx"] if asked == FLOAT32 else []))
    run = fit(empty_folder, [*SHORT, f"--trainer.precision={asked}"])
    assert lines_of(capsys) == []
    assert precision_of(run) == asked
    assert computed_in == {dtype}


# What hands a number from a tensor to Python; on a GPU each waits for all that was begun.
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


def reads_in(steps: int, reads: Counter[str], fit: Fit, logs: Path) -> Counter[str]:
    reads.clear()
    fit(logs, [*TINY, "--data.batch_size=50", f"--trainer.limit_train_batches={steps}"])
    return Counter(reads)


def test_no_step_waits_for_a_number(reads: Counter[str], fit: Fit, empty_folder: Path) -> None:
    few, many = (reads_in(steps, reads, fit, empty_folder / str(steps)) for steps in (4, 12))
    assert few.total() > 0  # an epoch's own figures
    assert many - few == few - many == Counter()


def test_a_step_that_waits_is_found(
    reads: Counter[str], fit: Fit, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = MLP.training_step

    def reading(self: MLP, batch: ImageSet, batch_idx: int) -> Tensor:
        loss = step(self, batch, batch_idx)
        loss.item()
        return loss

    monkeypatch.setattr(MLP, "training_step", reading)
    few, many = (reads_in(steps, reads, fit, empty_folder / str(steps)) for steps in (4, 12))
    assert many.total() - few.total() == 8
    assert [name.split()[0] for name in many - few] == ["item"]
