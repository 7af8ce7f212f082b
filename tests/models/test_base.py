"""The base class against slow references: metrics, optimizers, schedules, clipping, what a checkpoint holds."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from torch.optim import SGD, Adam, AdamW, Optimizer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import InputError
from cifar_lightning.models import CNN, MLP, ImageClassifier, WhitenedCNN, base
from cifar_lightning.models.metrics import LossAndAccuracy
from tests.models.conftest import batch, loader, trainer

# Most runs here have nothing to validate on.
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


def slow_metrics(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, image by image, in Python's own arithmetic."""
    loss, right = 0.0, 0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        loss += math.log(sum(math.exp(x) for x in row)) - row[label]
        right += max(range(10), key=row.__getitem__) == label
    return loss / len(logits), right / len(logits)


def test_loss_and_accuracy_against_a_slow_one() -> None:
    metric, logits = LossAndAccuracy(), (3 * torch.randn(238, 10)).requires_grad_()
    labels = torch.randint(0, 10, (238,))
    loss, acc = slow_metrics(logits, labels)
    for _ in range(2):  # epochs
        for x, y in zip(logits.split([100, 100, 37, 1]), labels.split([100, 100, 37, 1]), strict=True):
            metric.update(F.cross_entropy(x, y), x, y)
        assert (int(metric.count), int(metric.correct)) == (238, round(acc * 238))
        assert metric.compute() == {"loss": pytest.approx(loss, rel=1e-5), "acc": torch.tensor(acc)}
        assert not metric.loss_sum.requires_grad  # or it would hold every step's graph
        metric.reset()


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW), ("sgd", SGD)])
def test_an_optimizer_moves_every_weight_and_keeps_float32(name: Any, kind: type[Optimizer]) -> None:
    model = CNN(channels=(4,), optimizer=name, lr=0.0123, weight_decay=0.045)
    before, run = [p.detach().clone() for p in model.parameters()], trainer()
    run.fit(model, loader(batch(16)))
    (optimizer,) = run.optimizers
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    expected = {"momentum": 0.9, "nesterov": True, "dampening": 0} if kind is SGD else {"betas": (0.9, 0.999)}
    assert group.items() >= (expected | {"lr": 0.0123, "weight_decay": 0.045}).items()
    for old, new in zip(before, model.parameters(), strict=True):
        assert new.dtype == torch.float32
        assert new.isfinite().all()
        assert not torch.equal(old, new)


class Rates(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.values.append(trainer.optimizers[0].param_groups[0]["lr"])


def one_cycle(step: int) -> float:
    # Up from 1/25 for the first 30 % of 21 points (the last comes after the last step), down to 1/250,000.
    peak, end = 0.3 * 21 - 1, 20
    if step < peak:
        return 0.004 + 0.096 * (1 - math.cos(math.pi * step / peak)) / 2
    return 4e-7 + (0.1 - 4e-7) * (1 + math.cos(math.pi * (step - peak) / (end - peak))) / 2


RATES: dict[Any, Callable[[int], float]] = {
    "constant": lambda step: 0.1,
    "cosine": lambda step: 0.05 * (1 + math.cos(math.pi * step / 20)),
    "one-cycle": one_cycle,
    # Up from a fifth for the first 23 % of 21 points, down to 7 %.
    "triangular": lambda step: float(np.interp(step, [0, 0.23 * 21 - 1, 20], [0.02, 0.1, 0.007])),
}


@pytest.mark.parametrize("schedule", RATES)
def test_a_schedule_spans_the_whole_run(schedule: Any) -> None:
    run = trainer(2, seen := Rates())  # two epochs of ten steps
    run.fit(MLP(width=2, lr=0.1, schedule=schedule, optimizer="sgd"), loader(*[batch(4)] * 10))
    (group,) = run.optimizers[0].param_groups
    expected = [RATES[schedule](step) for step in range(21)]
    assert [*seen.values, group["lr"]] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert group["momentum"] == 0.9  # which one-cycle could move, too


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "triangular"])
def test_a_schedule_needs_an_end(schedule: Any) -> None:
    with pytest.raises(InputError, match=f"^schedule: {schedule} must know where the run ends"):
        trainer(-1).fit(MLP(width=2, schedule=schedule), loader(batch(4)))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("algorithm", "ord"), [(None, 2), ("norm", 2), ("value", math.inf)])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_a_step_is_as_long_as_the_clipped_gradient(
    precision: str, algorithm: str | None, ord: float, clip: float | None
) -> None:
    model = MLP(width=8, optimizer="sgd", lr=0.5)
    before = parameters_to_vector(model.parameters()).detach()
    run = trainer(precision=precision, gradient_clip_val=clip, gradient_clip_algorithm=algorithm)
    run.fit(model, loader(batch(50)))
    step = parameters_to_vector(model.parameters()).detach() - before
    # The first step of Nesterov's momentum of 0.9: the gradient once by itself and 0.9 times as momentum.
    gradient = torch.linalg.vector_norm(step, ord).item() / (0.5 * 1.9)
    assert gradient == pytest.approx(clip, rel=1e-3) if clip else gradient > 0.02


def test_it_can_learn_sixty_four_images_by_heart() -> None:
    model, data, run = CNN(channels=(8, 16), dropout=0.0, lr=0.01), [batch(32), batch(32)], trainer(25)
    run.fit(model, loader(*data))
    assert run.callback_metrics["train/acc"] == 1
    assert run.callback_metrics["train/loss"] < 0.1
    model.eval()
    assert all(torch.equal(model(part.images).argmax(1), part.labels) for part in data)


def published(run: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in run.callback_metrics.items()}


def test_a_test_counts_every_image_once() -> None:
    model, data, run = CNN(channels=(4,)).eval(), [batch(50), batch(50), batch(7)], trainer()
    logits, labels = model(torch.cat([part.images for part in data])), torch.cat([part.labels for part in data])
    run.test(model, loader(*data), verbose=False)
    loss, acc = slow_metrics(logits, labels)
    assert published(run) == pytest.approx({"test/loss": loss, "test/acc": acc}, rel=1e-5)
    expected = torch.zeros(10, 10, dtype=torch.int64)
    for label, guess in zip(labels.tolist(), logits.argmax(1).tolist(), strict=True):
        expected[label, guess] += 1
    assert torch.equal(model.confusion_counts, expected)


@pytest.mark.parametrize("kind", [CNN, MLP])
def test_label_smoothing_is_of_the_training_loss_alone(kind: Any) -> None:
    model, data, run = kind(dropout=0.0, batch_norm=False, lr=1e-9, label_smoothing=0.2), batch(20), trainer()
    logits = model(data.images)
    by_class = [slow_metrics(logits, torch.full((20,), label))[0] for label in range(10)]
    plain = slow_metrics(logits, data.labels)[0]
    run.fit(model, loader(data), loader(data))
    metrics = published(run)
    assert metrics["train/loss"] == pytest.approx(0.8 * plain + 0.2 * sum(by_class) / 10, rel=1e-4)
    assert metrics["val/loss"] == pytest.approx(plain, rel=1e-4)


def seen(images: Tensor, flip: bool, shift: int) -> Tensor:
    """What is seen of images that are padded by reflection from the upper left (-1) or the lower right (1)."""
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")[..., 1 + shift : 33 + shift, 1 + shift : 33 + shift]
    return torch.stack([image[:, :, torch.arange(31, -1, -1)] if flip else image for image in padded])


@pytest.mark.parametrize("kind", [CNN, MLP, WhitenedCNN])
@pytest.mark.parametrize("views", [1, 2, 6])
def test_a_test_averages_the_logits_of_views_and_validation_does_not(kind: Any, views: Any) -> None:
    weights = {1: {(False, 0): 1.0}, 2: {(False, 0): 0.5, (True, 0): 0.5}}
    weights[6] = {(flip, 0): 0.25 for flip in (False, True)}
    weights[6] |= {(flip, shift): 0.125 for flip in (False, True) for shift in (-1, 1)}
    data, run, model = batch(20), trainer(), kind(views=views).eval()
    if isinstance(model, WhitenedCNN):
        model.whiten(data.images)
    parts = [w * model(seen(data.images, flip, shift)) for (flip, shift), w in weights[views].items()]
    logits = torch.stack(parts).sum(0)
    (probabilities,) = run.predict(model, loader(data)) or []
    torch.testing.assert_close(cast(Tensor, probabilities), logits.softmax(1))
    run.test(model, loader(data), verbose=False)
    assert published(run)["test/loss"] == pytest.approx(slow_metrics(logits, data.labels)[0], rel=1e-4)
    run.validate(model, loader(data), verbose=False)
    plain = slow_metrics(model(data.images), data.labels)[0]
    assert published(run)["val/loss"] == pytest.approx(plain, rel=1e-4)


def test_validation_tells_the_two_sets_apart() -> None:
    model, val, clean, run = CNN(channels=(4,)).eval(), batch(30), batch(20), trainer()
    val_loss, val_acc = slow_metrics(model(val.images), val.labels)
    clean_loss, clean_acc = slow_metrics(model(clean.images), clean.labels)
    run.validate(model, [loader(val), loader(clean)], verbose=False)
    expected = {"val/loss": val_loss, "val/acc": val_acc, "train_clean/loss": clean_loss, "train_clean/acc": clean_acc}
    expected |= {"gap/loss": val_loss - clean_loss, "gap/acc": clean_acc - val_acc}
    assert published(run) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("device", "channels_last"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_weights_lie_as_the_device_will_like_them(device: str, channels_last: bool) -> None:
    # The hook runs before the Trainer moves the model: what counts is where it is going.
    model: Any = CNN(channels=(8,))
    model.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))
    model.setup("fit")
    assert model.network.conv1.weight.is_contiguous(memory_format=torch.channels_last) is channels_last


@pytest.mark.parametrize("model", [CNN(channels=(4,)), MLP(width=4), WhitenedCNN(channels=(4,))])
def test_a_checkpoint_holds_the_network_alone(model: ImageClassifier) -> None:
    model.training_step(batch(8), 0)
    state = model.state_dict()
    assert list(state) == [f"network.{name}" for name in model.network.state_dict()]


def test_a_compiled_network_keeps_the_names_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "check_compiler", lambda device: None)  # which compiles, for ten seconds
    model: Any = CNN(channels=(4,), compile=True)
    model.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    model.setup("fit")
    assert list(model.state_dict()) == list(CNN(channels=(4,)).state_dict())
    assert set(copy.deepcopy(model).state_dict()) == set(model.state_dict())  # as averages of weights begin


class Curves(CSVLogger):
    """Collects what it is sent, with its step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sent: list[tuple[str, int | None, float]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.sent += [(name, step, value) for name, value in metrics.items() if "/" in name]


def test_a_plain_trainer_logs_every_curve_once_an_epoch(tmp_path: Path) -> None:
    data = CIFAR10DataModule(source="synthetic", train_size=200, val_size=100, train_clean_size=50)
    curves, model = Curves(tmp_path), MLP(width=4)
    run = Trainer(accelerator="cpu", max_epochs=2, logger=curves, enable_progress_bar=False, log_every_n_steps=1)
    run.fit(model, data)
    names = [f"{stage}/{name}" for stage in ("train", "val", "train_clean", "gap") for name in ("loss", "acc")]
    assert sorted((name, step) for name, step, _ in curves.sent) == sorted((n, s) for n in names for s in (1, 3))
    last = {name: value for name, step, value in curves.sent if step == 3}
    assert last == pytest.approx(published(run))
    path = getattr(run.checkpoint_callback, "best_model_path")  # noqa: B009  # its type does not tell
    again = MLP.load_from_checkpoint(path, weights_only=True)
    assert again.hparams == model.hparams
    run.test(again, data, verbose=False)
    assert {name for name, *_ in curves.sent[16:]} == {"test/loss", "test/acc"}


@pytest.mark.parametrize("views", [1, 6])
def test_loaders_alone_give_the_metrics_that_their_data_module_gives(views: Any, tmp_path: Path) -> None:
    data, run = CIFAR10DataModule(source="synthetic", train_size=200, val_size=100, train_clean_size=50), trainer()
    model = MLP(width=4, views=views)
    validated, tested = run.validate(model, data, verbose=False), run.test(model, data, verbose=False)
    assert {*validated[0], *validated[1], *tested[0]} >= {"val/loss", "train_clean/acc", "gap/loss", "test/acc"}
    assert run.validate(model, data.val_dataloader(), verbose=False) == validated
    assert run.test(model, data.test_dataloader(), verbose=False) == tested
    # Metrics that were reset in inference mode are of use.
    assert trainer(inference_mode=False).test(model, data, verbose=False) == tested
    run.fit(model, data)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_summed_in_float32_whatever_the_model_is(dtype: torch.dtype) -> None:
    (metric,) = torch.nn.ModuleList([LossAndAccuracy()]).to(dtype)
    assert isinstance(metric, LossAndAccuracy)
    for _ in range(2):
        for _ in range(1000):
            metric.update(torch.tensor(2.3, dtype=dtype), torch.zeros(100, 10), torch.zeros(100, dtype=torch.int64))
        assert metric.compute()["loss"].item() == pytest.approx(torch.tensor(2.3, dtype=dtype).item())
        metric.reset()


class Epochs(Callback):
    """`train/*` of each epoch by its number."""

    def __init__(self) -> None:
        self.published: dict[int, dict[str, float]] = {}

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        self.published[trainer.current_epoch] = published(trainer)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_resumed_epoch_has_the_metrics_of_the_whole(tmp_path: Path) -> None:
    # A ModelCheckpoint saves before the model publishes, after an epoch's last batch, too.
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    data = [batch(size) for size in (8, 8, 5)]

    def fit(*callbacks: Callback, order: list[int], start: int | None = None) -> dict[int, dict[str, float]]:
        model = MLP(width=4, dropout=0.0, batch_norm=False, lr=0.1)
        run = trainer(3, epochs := Epochs(), *callbacks)
        path = tmp_path / f"step={start}.ckpt" if start else None
        run.fit(model, loader(*[data[i] for i in order]), ckpt_path=path, weights_only=True)
        return epochs.published

    whole = fit(save, order=[0, 1, 2])
    held = [torch.load(tmp_path / f"step={step}.ckpt").get("train_metrics") for step in (4, 5, 6)]
    assert [sums and int(sums["count"]) for sums in held] == [8, 16, None]
    # The rest of the epoch comes first; a loader begins again, so that is all that it has.
    assert fit(order=[2], start=5)[1] == whole[1]
    assert fit(order=[0, 1, 2], start=6)[2] == whole[2]
