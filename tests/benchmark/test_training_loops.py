"""Whether what is compared is the same work."""

import copy
import io
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.benchmark import timing, training_loops
from cifar_lightning.benchmark.training_loops import TorchvisionImages, describe, products, stock, stock_optimizer
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data.image_set import ImageSet
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
BOTH = pytest.mark.parametrize("name", ["cnn", "mlp"])

FEW = ["--data.source=synthetic", "--data.train_size=500", "--data.val_size=200", "--data.train_clean_size=100"]
SMALL_MODELS = {
    "mlp": ["--model=MLP", "--model.width=8", "--model.dropout=0", "--trainer.accelerator=cpu", *FEW],
    "cnn": ["--model=CNN", "--model.channels=[4]", "--model.dropout=0", "--trainer.accelerator=cpu", *FEW],
}


def trained(name: str) -> nn.Module:
    """A network whose batch norm has seen something, in the memory format in which `fit` keeps it."""
    torch.manual_seed(0)
    network = CASES[name][0]().network.to(memory_format=torch.channels_last)
    for _ in range(3):
        network(torch.randn(20, 3, 32, 32) * 2 + 1)
    return network


def bits(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


Run = Callable[[str, list[str], int], list[Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a variant in this process for some epochs and returns what it sends."""

    def run_here(name: str, flags: list[str], epochs: int) -> list[Any]:
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * (epochs + 1)))
        monkeypatch.setattr(timing, "STDOUT", output)
        with pytest.raises(SystemExit) as stop:
            training_loops.main([name, *flags])
        assert not stop.value.code
        return [json.loads(line) for line in output.getvalue().splitlines()]

    return run_here


@pytest.mark.parametrize("name", CASES)
def test_stock_is_the_same_network_of_pytorchs_own_modules(name: str) -> None:
    network = trained(name)
    before, kinds = bits(network), [type(m) for m in network.modules()]
    strides = [p.stride() for p in network.parameters()]
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
    with torch.no_grad():
        for p in own.parameters():
            p.zero_()
    assert same(bits(network), before)
    assert [type(m) for m in network.modules()] == kinds
    assert [p.stride() for p in network.parameters()] == strides


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "adam": lambda parameters: Adam(parameters, lr=0.01, weight_decay=0.1),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.1),
    "sgd": lambda parameters: SGD(parameters, lr=0.01, weight_decay=0.1, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_stock_optimizer_is_as_people_write_it(kind: Any) -> None:
    model = MLP(width=8, lr=0.01, weight_decay=0.1, optimizer=kind)
    ((group,), (expected,)) = (
        each.param_groups for each in (stock_optimizer(model), OPTIMIZERS[kind](model.parameters()))
    )
    assert all(a is b for a, b in zip(group.pop("params"), expected.pop("params"), strict=True))
    assert group == expected
    assert group["fused"] is None


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@BOTH
def test_the_products_are_a_steps(name: str) -> None:
    # The gradient of the images, which nobody needs, would be more.
    network, images, labels = trained(name), torch.randn(6, 3, 32, 32), torch.arange(6)
    whole = flops(lambda: F.cross_entropy(network(images), labels).backward())
    step = products(network, images, torch.float32)
    assert flops(step) == whole > 0
    assert flops(step) == whole


class Calls(TorchFunctionMode):
    """Keeps name and types of each function that is called; reads and writes of attributes left out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ not in ("__get__", "__set__"):
            self.seen.append((func.__name__, *(getattr(arg, "dtype", None) for arg in args[:3])))
        return func(*args, **(kwargs or {}))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_all_that_is_computed_and_in_the_type_asked_for(name: str, dtype: torch.dtype) -> None:
    step, calls = products(trained(name), torch.randn(6, 3, 32, 32), dtype), Calls()
    with calls:
        step()
    layers = {"cnn": ["conv2d", "conv2d", "linear"], "mlp": ["linear"] * 3}[name]
    *forward, (last, *_) = calls.seen
    assert forward == [(layer, dtype, dtype, None) for layer in layers]  # no bias
    assert last == "backward"


@BOTH
def test_products_leave_no_trace_on_the_network(name: str) -> None:
    network = trained(name).eval()
    before = bits(network)
    products(network, torch.randn(6, 3, 32, 32), torch.bfloat16)()
    assert same(bits(network), before)
    assert [p for p in network.parameters() if p.grad is not None] == []


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


def trained_by_fit(fit: Fit, flags: list[str], epochs: int) -> dict[str, Tensor]:
    run_folder = fit(Path(), [*flags, f"--trainer.max_epochs={epochs}"])
    state = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_bare_loop_learns_what_fit_learns(
    name: str, precision: str, fit: Fit, empty_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[DryRun] = []

    def keep(setting: DryRun) -> dict[str, Any]:
        settings.append(setting)
        return describe(setting)

    monkeypatch.setattr(training_loops, "describe", keep)
    flags = [*SMALL_MODELS[name], f"--trainer.precision={precision}"]
    described, epoch = run("bare loop", flags, 1)
    expected = {"model": name.upper(), "precision": precision, "threads": torch.get_num_threads()}
    assert described == {**described, **expected}
    assert epoch["steps"] == 5
    assert epoch["seconds"] > 0
    assert list(empty_folder.iterdir()) == []
    assert same(bits(settings[0].model.network), trained_by_fit(fit, flags, 1))


def test_the_baseline_learns_what_fit_learns(
    fit: Fit, empty_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One batch per epoch, so that the order of the images is a matter of rounding alone.
    flags = [*SMALL_MODELS["mlp"], "--data.batch_size=500", "--model.optimizer=sgd", "--model.lr=0.01"]
    flags += ["--trainer.precision=32-true"]
    networks: list[nn.Module] = []

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


@pytest.mark.parametrize("name", ["baseline", "bare loop"])
def test_an_image_that_batch_norm_cant_average_is_left_out(name: str, empty_folder: Path, run: Run) -> None:
    flags = [*SMALL_MODELS["mlp"], "--data.train_size=501"]  # in batches of 100 one is left over
    assert run(name, flags, 1)[1]["steps"] == 5


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_a_turn_of_the_limit(
    precision: str, dtype: torch.dtype, empty_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    steps: list[None] = []

    def note(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
        asked.append((type(network), tuple(images.shape), dtype))
        return lambda: steps.append(None)

    monkeypatch.setattr(training_loops, "products", note)
    epochs = run("limit", [*SMALL_MODELS["cnn"], f"--trainer.precision={precision}", "--data.batch_size=3"], 2)[1:]
    assert asked == [(nn.Sequential, (3, 3, 32, 32), dtype)]
    assert [epoch["steps"] for epoch in epochs] == [training_loops.LIMIT_STEPS] * 2
    assert len(steps) == 2 * training_loops.LIMIT_STEPS
    assert list(empty_folder.iterdir()) == []
