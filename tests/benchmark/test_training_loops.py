"""Whether what is compared is the same work, and how it is timed."""

import copy
import functools
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.benchmark import training_loops
from cifar_lightning.benchmark.training_loops import LIMIT_STEPS, TorchvisionImages, limit, peak_mib, stock
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data import ImageSet
from cifar_lightning.data.transforms import MEAN, STD, normalize
from cifar_lightning.models import CNN, MLP, ImageClassifier
from tests.conftest import Fit

CONV_BLOCK = ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "MaxPool2d"]
DENSE_LAYER = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
CASES: dict[str, tuple[Callable[[], ImageClassifier], list[str], float]] = {
    "cnn": (lambda: CNN(channels=(8, 16)), [*CONV_BLOCK, *CONV_BLOCK, "Flatten", "Linear"], 0.5),
    "cnn without dropout": (lambda: CNN(channels=(8,), dropout=0), [*CONV_BLOCK, "Flatten", "Linear"], 0.0),
    "mlp": (lambda: MLP(width=16, depth=2), ["Flatten", *DENSE_LAYER, *DENSE_LAYER, "Linear"], 0.5),
}
FEW = ["--data.source=synthetic", "--data.train_size=500", "--data.val_size=200", "--data.train_clean_size=100"]
FEW += ["--trainer.accelerator=cpu"]
SMALL_MODELS = {
    "mlp": ["--model=MLP", "--model.width=8", "--model.dropout=0", *FEW],
    "cnn": ["--model=CNN", "--model.channels=[4]", "--model.dropout=0", *FEW],
    "whitenedcnn": [
        *("--model=WhitenedCNN", "--model.channels=[4]", "--model.optimizer=sgd", "--model.label_smoothing=0.2"),
        *("--data.augment=alternating-flip", "--data.max_shift=0", "--data.resolutions=[16]", *FEW),
    ],
}
OPTIMIZERS: dict[str, Any] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def bits(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


Run = Callable[[str, list[str], int], list[Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> Run:
    """Runs a variant in this process for some epochs and returns what it sends; it writes no file."""

    def run_here(name: str, flags: list[str], epochs: int) -> list[Any]:
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * (epochs + 1)))
        monkeypatch.setattr(training_loops, "STDOUT", output)
        with pytest.raises(SystemExit, match="0"):  # with the last line the process ends
            training_loops.main([name, *flags])
        assert list(empty_folder.iterdir()) == []
        return [json.loads(line) for line in output.getvalue().splitlines()]

    return run_here


def keeping(results: list[Any], function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, with its results kept."""

    def keep(argument: Any) -> Any:
        results.append(function(argument))
        return results[-1]

    return keep


@pytest.mark.parametrize("name", CASES)
def test_stock_is_the_same_network_of_pytorchs_own_modules(name: str) -> None:
    torch.manual_seed(0)
    network = CASES[name][0]().network.to(memory_format=torch.channels_last)  # as `fit` keeps it
    for _ in range(3):  # batch norm has seen something
        network(torch.randn(20, 3, 32, 32) * 2 + 1)
    before, described = bits(network), [repr(network), *(p.stride() for p in network.parameters())]
    own, images = stock(network).eval(), torch.randn(7, 3, 32, 32)
    assert all(type(m).__module__.startswith("torch.nn.") for m in own.modules())
    modules = [m for m in own.modules() if not isinstance(m, nn.Sequential)]
    assert [type(m).__name__ for m in modules] == CASES[name][1]
    assert {m.p for m in modules if isinstance(m, nn.Dropout)} == {CASES[name][2]}
    assert same(bits(own), before)
    assert all(p.is_contiguous() for p in own.parameters())
    # In one memory format: another may choose another order of sums.
    assert torch.equal(own(images), copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()(images))
    # The original stays as it is.
    nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in own.parameters())), own.parameters())
    assert same(bits(network), before)
    assert [repr(network), *(p.stride() for p in network.parameters())] == described


class Calls(TorchFunctionMode):
    """Keeps name and types of each function that is called; reads and writes of attributes left out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ not in ("__get__", "__set__"):
            types = [getattr(arg, "dtype", None) for arg in args[:3]] if func.__name__ != "backward" else []
            self.seen.append((func.__name__, *types))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("flags", "size"), [([], 6), (["--data.train_size=10", "--data.batch_size=99"], 10)])
@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
@pytest.mark.parametrize(("name", "layers"), [("cnn", ["conv2d", "linear"]), ("mlp", ["linear"] * 2)])
def test_the_limit_is_the_products_of_training_steps_and_nothing_else(
    name: str,
    layers: list[str],
    precision: str,
    dtype: torch.dtype,
    flags: list[str],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turn(mode: Any, device: torch.device, steps: int) -> Iterator[None]:
        assert steps == LIMIT_STEPS
        with mode:
            yield

    calls, products, whole = Calls(), FlopCounterMode(display=False), FlopCounterMode(display=False)
    flags = ["fit", *SMALL_MODELS[name], "--data.batch_size=6", f"--trainer.precision={precision}", *flags]
    for mode in (calls, products):
        monkeypatch.setattr(training_loops, "timed_epochs", functools.partial(turn, mode))
        limit(setting := DryRun(flags))
    forward = [(layer, dtype, dtype, None) for layer in layers]  # no bias
    assert calls.seen == [*forward, ("backward",)] * LIMIT_STEPS
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in setting.model.parameters() if p.dim() == 4)
    with whole:  # the gradient of the images, which nobody needs, would be more
        F.cross_entropy(DryRun(flags).model(torch.randn(size, 3, 32, 32)), torch.arange(size)).backward()
    assert products.get_total_flops() == LIMIT_STEPS * whole.get_total_flops() > 0


def test_torchvisions_images_are_ours_one_by_one() -> None:
    images = ImageSet(torch.randint(256, (13, 3, 32, 32), dtype=torch.uint8), torch.arange(13) % 10)
    one_by_one = TorchvisionImages(images)
    assert len(one_by_one) == 13
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for i, (image, label) in enumerate(one_by_one):
        assert image.dtype == torch.float32
        assert torch.equal(image, (images.images[i].float() / 255 - mean) / std)
        torch.testing.assert_close(image, normalize(images.images[i : i + 1])[0], rtol=0, atol=1e-6)
        assert label == i % 10


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_baselines_optimizer_is_as_people_write_it(kind: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(ImageClassifier, "new_optimizer", keeping(made, ImageClassifier.new_optimizer))
    flags = [f"--model.optimizer={kind}", "--model.lr=0.01", "--model.weight_decay=0.1"]
    run("baseline", [*SMALL_MODELS["mlp"], *flags], 0)
    momentum = {"momentum": 0.9, "nesterov": True} if kind == "sgd" else {}
    parameters = made[0].param_groups[0]["params"]
    assert made[0].param_groups == OPTIMIZERS[kind](parameters, lr=0.01, weight_decay=0.1, **momentum).param_groups
    assert made[0].param_groups[0]["fused"] is None


def trained_by_fit(fit: Fit, flags: list[str], epochs: int) -> dict[str, Tensor]:
    run_folder = fit(Path(), [*flags, f"--trainer.max_epochs={epochs}"])
    state = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_bare_loop_learns_what_fit_learns(
    name: str, precision: str, fit: Fit, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[DryRun] = []
    monkeypatch.setattr(training_loops, "DryRun", keeping(settings, DryRun))
    flags = [*SMALL_MODELS[name], f"--trainer.precision={precision}"]
    described, epoch = run("bare loop", flags, 1)
    expected = {
        "model": name.upper().replace("WHITENED", "Whitened"),
        "precision": precision,
        "threads": torch.get_num_threads(),
    }
    assert described == {**described, **expected}
    assert epoch["steps"] == 5
    assert same(bits(settings[0].model.network), trained_by_fit(fit, flags, 1))


def test_the_baseline_learns_what_fit_learns(fit: Fit, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # One batch per epoch, so that the order of the images is a matter of rounding alone.
    sgd = ["--model.optimizer=sgd", "--model.lr=0.01", "--trainer.precision=32-true"]
    flags = [*SMALL_MODELS["mlp"], "--data.batch_size=500", *sgd]
    networks: list[nn.Module] = []  # the last two: before training, and what is trained

    def keep(network: nn.Module) -> nn.Module:
        networks.extend([network, stock(network)])
        return networks[-1]

    def weights(state: dict[str, Tensor]) -> Tensor:
        return torch.cat([state[name].flatten() for name, _ in networks[-2].named_parameters()])

    monkeypatch.setattr(training_loops, "stock", keep)
    assert [epoch["steps"] for epoch in run("baseline", flags, 2)[1:]] == [1, 1]
    by_fit = weights(trained_by_fit(fit, flags, 2))
    learnt = by_fit - weights(bits(networks[-2]))
    missed = by_fit - weights(bits(networks[-1]))
    assert learnt.norm() > 0
    assert missed.norm() < 1e-3 * learnt.norm()


@pytest.mark.parametrize(("name", "steps"), [("baseline", 5), ("bare loop", 5), ("limit", LIMIT_STEPS)])
def test_an_image_that_batch_norm_cant_average_is_left_out(name: str, steps: int, run: Run) -> None:
    flags = [*SMALL_MODELS["mlp"], "--data.train_size=501"]  # in batches of 100 one is left over
    _, epoch = run(name, flags, 1)
    assert epoch.pop("seconds") > 0
    assert epoch == {"steps": steps, "peak_mib": pytest.approx(peak_mib(), rel=0.1), "peak_device_mib": None}


@pytest.mark.parametrize(("name", "steps"), [("baseline", 5), ("limit", LIMIT_STEPS)])
def test_a_frozen_layer_and_groups_of_parameters(name: str, steps: int, run: Run) -> None:
    assert run(name, SMALL_MODELS["whitenedcnn"], 1)[1]["steps"] == steps


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")
def test_the_peak_lies_between_what_is_held_and_what_linux_counts() -> None:
    import resource  # Windows has none

    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    peak = peak_mib()
    assert peak is not None
    # Linux keeps these counters for each core and sums them up when it likes.
    assert 0.95 * held < peak < 1.05 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
