"""That what is compared is the same work."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cifar_lightning.benchmark.stock import Pictures, stock, stock_optimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.benchmark import training_loops as ways
from cifar_lightning.benchmark.products import products
from cifar_lightning.benchmark.training_loops import LIMIT_STEPS, describe
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.transforms import MEAN, STD, normalize
from cifar_lightning.models import CNN, MLP, ImageClassifier
from tests.conftest import Fit

MODELS: dict[str, Callable[[], ImageClassifier]] = {
    "cnn": lambda: CNN(channels=(8, 16)),
    "cnn without dropout": lambda: CNN(channels=(8,), dropout=0),
    "mlp": lambda: MLP(width=16, depth=2),
}
BOTH = pytest.mark.parametrize("name", ["cnn", "mlp"])
ALL = pytest.mark.parametrize("name", MODELS)

FEW = ["--data.source=synthetic", "--data.train_size=500", "--data.val_size=200", "--data.train_clean_size=100"]
SMALL_MODELS = {
    "mlp": ["--model=MLP", "--model.width=8", "--model.dropout=0"],
    "cnn": ["--model=CNN", "--model.channels=[4]", "--model.dropout=0"],
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def trained(name: str) -> nn.Module:
    """A network whose batch norm has seen something, in the memory format in which `fit` keeps it."""
    network = MODELS[name]().network.to(memory_format=torch.channels_last)
    for _ in range(3):
        network(torch.randn(20, 3, 32, 32) * 2 + 1)
    return network


def bits(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


class Turns:
    """Stands in for a way's connection: gives some turns, then is closed; keeps what is sent."""

    def __init__(self, count: int) -> None:
        self.left, self.sent = count, list[Any]()

    def recv(self) -> str:
        if not self.left:
            raise EOFError
        self.left -= 1
        return "go"

    def send(self, value: Any) -> None:
        self.sent.append(value)


def run(way: str, flags: list[str], count: int) -> list[Any]:
    """Runs a way in this process for some turns and returns what it sent."""
    connection: Any = Turns(count)
    with pytest.raises(SystemExit) as stop:
        ways.start(way, connection, flags)
    assert not stop.value.code
    sent: list[Any] = connection.sent
    return sent


@ALL
def test_stock_is_pytorchs_own(name: str) -> None:
    network = trained(name)
    plain = stock(network)
    assert [type(m).__name__ for m in plain.modules() if not type(m).__module__.startswith("torch.nn.")] == []
    assert same(bits(plain), bits(network))
    assert all(p.is_contiguous() for p in plain.parameters())
    rates = [m.p for m in plain.modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.0 if "without" in name else 0.5] * len(rates)


def test_stock_keeps_the_order_of_layers() -> None:
    kinds = [type(m).__name__ for m in stock(trained("cnn")).modules() if not isinstance(m, nn.Sequential)]
    block = ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "MaxPool2d"]
    assert kinds == [*block, *block, "Flatten", "Linear"]
    kinds = [type(m).__name__ for m in stock(trained("mlp")).modules() if not isinstance(m, nn.Sequential)]
    layer = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert kinds == ["Flatten", *layer, *layer, "Linear"]


@ALL
def test_stock_computes_the_same(name: str) -> None:
    # In one memory format: another may choose another order of sums.
    network = trained(name).to(memory_format=torch.contiguous_format).eval()
    images = torch.randn(7, 3, 32, 32)
    assert torch.equal(stock(network).eval()(images), network(images))


@ALL
def test_stock_leaves_the_original_alone(name: str) -> None:
    network = trained(name)
    before, kinds = bits(network), [type(m) for m in network.modules()]
    strides = [p.stride() for p in network.parameters()]
    plain = stock(network)
    with torch.no_grad():
        for p in plain.parameters():
            p.zero_()
    assert same(bits(network), before)
    assert [type(m) for m in network.modules()] == kinds
    assert [p.stride() for p in network.parameters()] == strides


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"betas": (0.9, 0.999)},
    "adamw": {"betas": (0.9, 0.999)},
    "sgd": {"momentum": 0.9, "nesterov": True},
}


def both_optimizers(kind: Any) -> tuple[ImageClassifier, nn.Module, Optimizer, Optimizer]:
    model = MLP(width=8, lr=0.01, weight_decay=0.1, optimizer=kind)
    ours, network = model.new_optimizer(), copy.deepcopy(model.network)
    return model, network, ours, stock_optimizer(ours, network)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_stock_optimizer_has_the_same_settings_unfused(kind: str) -> None:
    _, network, ours, plain = both_optimizers(kind)
    assert type(plain) is type(ours)
    (group,) = plain.param_groups
    assert {key: group[key] for key in ("lr", "weight_decay", *OPTIMIZERS[kind])} == {
        "lr": 0.01,
        "weight_decay": 0.1,
        **OPTIMIZERS[kind],
    }
    assert ours.defaults["fused"] is True
    assert group["fused"] is None
    assert group["foreach"] is None
    assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_stock_optimizer_takes_the_same_steps(kind: str) -> None:
    model, network, ours, plain = both_optimizers(kind)
    start = bits(network)
    for _ in range(3):
        for mine, its in zip(model.network.parameters(), network.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        ours.step()
        plain.step()
    for (name, mine), its in zip(model.network.named_parameters(), network.parameters(), strict=True):
        assert (mine - start[name]).abs().max() > 0.01  # a hundred thousand times what rounding may leave
        torch.testing.assert_close(its, mine, rtol=1e-6, atol=1e-7)


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@BOTH
def test_the_products_are_a_steps(name: str) -> None:
    network, images, labels = trained(name), torch.randn(6, 3, 32, 32), torch.arange(6)
    whole = flops(lambda: F.cross_entropy(network(images), labels).backward())
    step = products(network, images, torch.float32)
    assert flops(step) == whole > 0
    assert flops(step) == whole


Operation = tuple[str, tuple[Any, ...]]


class Record(TorchDispatchMode):
    """Keeps the name and arguments of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))


def recorded(name: str, dtype: torch.dtype) -> list[Operation]:
    step, record = products(trained(name), torch.randn(6, 3, 32, 32), dtype), Record()
    with record:
        step()
    return record.seen


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_all_that_is_computed_and_in_the_type_asked_for(name: str, dtype: torch.dtype) -> None:
    seen = recorded(name, dtype)
    views = {"t", "detach"}
    assert {operation for operation, _ in seen} - views <= {"convolution", "convolution_backward", "mm"}
    tensors = [arg for operation, args in seen if operation not in views for arg in args if isinstance(arg, Tensor)]
    assert {tensor.dtype for tensor in tensors} == {dtype}


def test_nobody_asks_for_the_gradient_of_the_images() -> None:
    seen = recorded("cnn", torch.float32)
    # What is asked for: the gradient of the input, the weight, the bias. The last layer comes first.
    asked = [args[-1] for operation, args in seen if operation == "convolution_backward"]
    assert asked == [[True, True, False], [False, True, False]]
    # Three linear layers: three products forward, two a layer back, one of which the first one leaves out.
    assert [operation for operation, _ in recorded("mlp", torch.float32)].count("mm") == 3 + 3 * 2 - 1


@BOTH
def test_products_leave_no_trace_on_the_network(name: str) -> None:
    network = trained(name).eval()
    before = bits(network)
    step = products(network, torch.randn(6, 3, 32, 32), torch.bfloat16)
    step()
    assert [m for m in network.modules() if m._forward_pre_hooks or m._forward_hooks] == []
    assert same(bits(network), before)
    assert [p for p in network.parameters() if p.grad is not None] == []


def test_pictures_are_the_images_one_by_one() -> None:
    images = ImageSet(torch.randint(256, (13, 3, 32, 32), dtype=torch.uint8), torch.arange(13) % 10)
    pictures = Pictures(images)
    assert len(pictures) == 13
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for i, (picture, label) in enumerate(pictures):
        assert picture.dtype == torch.float32
        assert torch.equal(picture, (images.images[i].float() / 255 - mean) / std)
        torch.testing.assert_close(picture, normalize(images.images[i : i + 1])[0], rtol=0, atol=1e-6)
        assert label == i % 10


def test_a_setting_is_fits_and_runs_nothing(empty_folder: Path) -> None:
    flags = ["--data.batch_size=7", "--trainer.precision=bf16-mixed", "--trainer.accelerator=cpu", *FEW]
    setting = DryRun(["fit", *SMALL_MODELS["mlp"], *flags, "--seed_everything=3"])
    assert type(setting.model) is MLP
    weights = bits(setting.model)
    setting.load()
    assert describe(setting) == {
        "model": "MLP",
        "parameters": 3072 * 8 + 8 + 2 * 8 + 8 * 10 + 10,
        "batch_size": 7,
        "train_images": 500,
        "source": "synthetic",
        "device": "cpu",
        "precision": "bf16-mixed",
        "threads": 1,
    }
    assert (setting.datamodule.seed, len(setting.datamodule.val.labels)) == (3, 200)
    assert setting.trainer.global_step == 0
    assert same(bits(setting.model), weights)
    assert list(empty_folder.iterdir()) == []


def keep_settings(monkeypatch: pytest.MonkeyPatch) -> list[DryRun]:
    """What the ways will build, to look into afterwards."""
    kept: list[DryRun] = []

    class Kept(DryRun):
        def load(self) -> None:
            kept.append(self)
            super().load()

    monkeypatch.setattr(ways, "DryRun", Kept)
    return kept


def network_of(run_folder: Path) -> dict[str, Tensor]:
    state = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_bare_loop_learns_what_fit_learns(
    name: str, precision: str, fit: Fit, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*SMALL_MODELS[name], *FEW, f"--trainer.precision={precision}", "--trainer.accelerator=cpu"]
    settings = keep_settings(monkeypatch)
    described, turn = run("loop", flags, 1)
    (setting,) = settings
    assert described == describe(setting)
    assert turn.steps == 5
    assert turn.seconds > 0
    assert list(empty_folder.iterdir()) == []
    trained_by_fit = network_of(fit(empty_folder, [*flags, "--trainer.max_epochs=1"]))
    assert same(bits(setting.model.network), trained_by_fit)


def test_the_loop_that_people_write_learns_what_fit_learns(
    fit: Fit, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One batch an epoch, so that the order of the images is a matter of rounding alone.
    flags = [*SMALL_MODELS["mlp"], *FEW, "--data.batch_size=500", "--model.optimizer=sgd", "--model.lr=0.01"]
    flags += ["--trainer.precision=32-true", "--trainer.accelerator=cpu"]
    networks: list[nn.Module] = []

    def keep(network: nn.Module) -> nn.Module:
        networks.append(stock(network))
        return networks[-1]

    def weights(state: dict[str, Tensor]) -> Tensor:
        return torch.cat([state[name].flatten() for name, _ in networks[-1].named_parameters()])

    monkeypatch.setattr(ways, "stock", keep)
    settings = keep_settings(monkeypatch)
    assert [turn.steps for turn in run("plain", flags, 2)] == [1, 1]
    by_fit = network_of(fit(empty_folder, [*flags, "--trainer.max_epochs=2"]))
    learnt = weights(by_fit) - weights(bits(settings[0].model.network))
    missed = weights(bits(networks[-1])) - weights(by_fit)
    assert learnt.norm() > 0
    assert missed.norm() < 1e-3 * learnt.norm()


def test_the_loop_that_people_write_leaves_out_one_image_too(empty_folder: Path) -> None:
    # 501 images in batches of 100 leave one over, which batch norm can't average.
    flags = [*SMALL_MODELS["mlp"], *FEW, "--data.train_size=501", "--trainer.accelerator=cpu"]
    assert [turn.steps for turn in run("plain", flags, 1)] == [5]
    assert run("loop", flags, 1)[1].steps == 5


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_a_turn_of_the_limit(
    precision: str, dtype: torch.dtype, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    steps: list[None] = []

    def note(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
        asked.append((type(network), tuple(images.shape), dtype))
        return lambda: steps.append(None)

    monkeypatch.setattr(ways, "products", note)
    flags = [*SMALL_MODELS["cnn"], f"--trainer.precision={precision}", "--trainer.accelerator=cpu", *FEW]
    turns = run("limit", [*flags, "--data.batch_size=3"], 2)
    assert asked == [(nn.Sequential, (3, 3, 32, 32), dtype)]
    assert [turn.steps for turn in turns] == [LIMIT_STEPS] * 2
    assert len(steps) == 2 * LIMIT_STEPS
    assert list(empty_folder.iterdir()) == []
