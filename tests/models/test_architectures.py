"""All architectures: layers, sizes, settings, and what their functions depend on."""

import copy
import itertools
import re
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_lightning.data import synthetic
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.transforms import normalize
from cifar_lightning.errors import InputError
from cifar_lightning.models import CNN, MLP, ImageClassifier, WhitenedCNN
from cifar_lightning.models.whitened_cnn import whitening_filters
from tests.models.conftest import batch, images, loader, trainer

Kind = type[CNN] | type[MLP]
BOTH = pytest.mark.parametrize("kind", [CNN, MLP])
ALL = pytest.mark.parametrize("kind", [CNN, MLP, WhitenedCNN])
BLOCK = "conv{0} bn{0} pool{0}.relu pool{0}.dropout pool{0}.maxpool "
# Layers in order, those of a block by its name; those of batch norm and dropout go with their setting.
LAYERS: list[tuple[Kind, dict[str, Any], str]] = [
    (CNN, {}, BLOCK.format(1) + BLOCK.format(2) + "flatten fc"),
    (CNN, {"channels": (8,)}, BLOCK.format(1) + "flatten fc"),
    (CNN, {"channels": [4, 8, 12]}, BLOCK.format(1) + BLOCK.format(2) + BLOCK.format(3) + "flatten fc"),
    (MLP, {}, "flatten fc1 bn1 relu dropout fc2"),
    (MLP, {"depth": 0}, "flatten fc1"),
    (MLP, {"depth": 2, "width": 16}, "flatten fc1 bn1 relu1 dropout1 fc2 bn2 relu2 dropout2 fc3"),
]


def layers_of(model: ImageClassifier) -> dict[str, nn.Module]:
    return {name: layer for name, layer in model.network.named_modules() if not list(layer.children())}


@pytest.mark.parametrize(("kind", "settings", "layers"), LAYERS)
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_layers(kind: Kind, settings: dict[str, Any], layers: str, batch_norm: bool, dropout: float) -> None:
    absent = ("bn",) * (not batch_norm) + ("dropout",) * (not dropout)
    model = kind(**settings, batch_norm=batch_norm, dropout=dropout)
    expected = [name for name in layers.split() if not name.split(".")[-1].startswith(absent or "nothing")]
    assert list(layers_of(model)) == expected
    # What stays is not changed by what goes.
    whole = {name: str(layer) for name, layer in layers_of(kind(**settings)).items()}
    assert all(whole[name] == str(layer) for name, layer in layers_of(model).items())
    assert model(images(2)).shape == (2, 10)
    assert all(p.requires_grad for p in model.parameters())


PARAMETERS: list[tuple[ImageClassifier, int]] = [
    (CNN(), (3 * 64 * 9 + 64) + 2 * 64 + (64 * 128 * 9 + 128) + 2 * 128 + (128 * 8 * 8 * 10 + 10)),
    (CNN(batch_norm=False), (3 * 64 * 9 + 64) + (64 * 128 * 9 + 128) + (128 * 8 * 8 * 10 + 10)),
    (CNN(dropout=0.0), 157_962),
    (CNN(channels=(8,)), (3 * 8 * 9 + 8) + 2 * 8 + (8 * 16 * 16 * 10 + 10)),
    (CNN(channels=(4, 8, 12)), 112 + 8 + (4 * 8 * 9 + 8) + 16 + (8 * 12 * 9 + 12) + 24 + (12 * 4 * 4 * 10 + 10)),
    (CNN(channels=(1,) * 5), (27 + 1) + 4 * (9 + 1) + 5 * 2 + (1 * 10 + 10)),
    (MLP(), 1_579_530),
    (MLP(batch_norm=False), (3072 * 512 + 512) + (512 * 10 + 10)),
    (MLP(depth=0), 3072 * 10 + 10),
    (MLP(depth=2, width=16), (3072 * 16 + 16) + 32 + (16 * 16 + 16) + 32 + (16 * 10 + 10)),
    (WhitenedCNN(), 1_972_792),
    (WhitenedCNN(channels=[8]), (3 * 24 * 4 + 24) + 24 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + 8 * 10),
]


@pytest.mark.parametrize(("model", "count"), PARAMETERS)
def test_parameters(model: ImageClassifier, count: int) -> None:
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.network.parameters()) == count


def test_sizes_of_the_layers() -> None:
    model: Any = CNN(dropout=0.3)
    conv = model.network.conv2
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.padding) == (64, 128, (3, 3), (1, 1))
    assert [bn.momentum for bn in (model.network.bn1, model.network.bn2, cast(Any, MLP()).network.bn1)] == [0.1] * 3
    assert [layer.p for layer in layers_of(model).values() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    for layers in (layers_of(model).values(), model.network):  # one by one, and the pools as one
        outputs = itertools.accumulate(layers, lambda x, layer: layer(x), initial=images(2))
        shapes = [tuple(x.shape[1:]) for x in outputs][1:]
        blocks = [(64, 32, 32), (64, 16, 16), (128, 16, 16), (128, 8, 8), (8192,), (10,)]
        assert list(dict.fromkeys(shapes)) == blocks


@ALL
def test_repr_is_the_network_alone(kind: type[ImageClassifier]) -> None:
    model = kind()
    lines = repr(model).splitlines()
    assert lines[0] == f"{kind.__name__}("
    assert lines[1:] == repr(model.network).splitlines()[1:]


OPTIMIZATION = {"lr": 0.001, "weight_decay": 0.0, "optimizer": "adam", "momentum": 0.9, "schedule": "constant"}
SCALING = {"dropout_scaling": "train"}
OPTIMIZATION |= {"label_smoothing": 0.0, "views": 1, "compile": False}
DEFAULTS: dict[type[ImageClassifier], dict[str, Any]] = {
    CNN: {"channels": (64, 128), "batch_norm": True, "dropout": 0.5, **SCALING, **OPTIMIZATION},
    MLP: {"width": 512, "depth": 1, "batch_norm": True, "dropout": 0.5, **SCALING, **OPTIMIZATION},
    WhitenedCNN: {"channels": (64, 256, 256), "bias_lr_factor": 64.0, "head_lr_factor": 1.0, **OPTIMIZATION},
}


@ALL
@pytest.mark.parametrize("given", [{}, {"lr": 0.1, "optimizer": "sgd", "schedule": "cosine"}])
def test_hyper_parameters_are_plain_and_complete(kind: type[ImageClassifier], given: dict[str, Any]) -> None:
    assert dict(kind(**given).hparams) == DEFAULTS[kind] | given
    assert all(type(value) in (bool, int, float, str, tuple) for value in kind(**given).hparams.values())


@pytest.mark.parametrize("batch_norm", [True, False])
def test_memory_format_does_not_change_the_function(batch_norm: bool) -> None:
    plain = CNN(channels=(8, 16), dropout=0.0, batch_norm=batch_norm)
    last = copy.deepcopy(plain)
    last.trainer = trainer()
    last.setup("fit")
    x, labels, results = images(16), torch.arange(16) % 10, []
    for model, pixels in ((plain, x), (last, x), (last, x.to(memory_format=torch.channels_last))):
        logits = model(pixels)
        results.append((logits, torch.autograd.grad(F.cross_entropy(logits, labels), list(model.parameters()))))
    for logits, gradients in results[1:]:
        torch.testing.assert_close(logits, results[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradients, results[0][1], rtol=1e-4, atol=1e-6)


def whitened(kind: type[ImageClassifier], **settings: Any) -> ImageClassifier:
    """A new model, whose first layer knows images where it must."""
    model = kind(**settings)
    if isinstance(model, WhitenedCNN):
        model.whiten(images(100))
    return model


@ALL
def test_evaluation_is_a_function_of_the_image_alone(kind: type[ImageClassifier]) -> None:
    model, x = whitened(kind).eval(), images(16)
    before = copy.deepcopy(model.state_dict())
    assert torch.equal(model(x), model(x))
    others = torch.cat([x[:1], 5 + 3 * images(15, seed=1)])
    assert torch.allclose(model(others)[0], model(x)[0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(model(x[:1])[0], model(x)[0], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@BOTH
def test_training_depends_on_batch_and_mask(kind: Kind) -> None:
    x = images(16)
    others = torch.cat([x[:1], 5 + 3 * images(15, seed=1)])
    assert not torch.allclose((masked := kind(batch_norm=False))(x), masked(x), atol=1e-3)
    normed = kind(dropout=0.0)
    assert torch.equal(normed(x), normed(x))
    assert not torch.allclose(normed(others)[0], normed(x)[0], atol=1e-3)


NAN = float("nan")
OF_ALL: dict[str, list[Any]] = {
    **{"lr": [0.0, -1e-3, NAN], "weight_decay": [-1e-9, NAN], "momentum": [-0.1, 1.0, NAN]},
    **{"label_smoothing": [-0.1, 1.1, NAN], "views": [0, 3, -1]},
}
OF_DROPOUT: dict[str, list[Any]] = {"dropout": [-0.1, 1.1, NAN], "dropout_scaling": ["eval", None]}
IMPOSSIBLE: dict[type[ImageClassifier], dict[str, list[Any]]] = {
    CNN: {"channels": [[0], [64, -1], [1] * 6], **OF_DROPOUT, **OF_ALL},
    MLP: {"width": [0, 10**6 + 1], "depth": [-1], **OF_DROPOUT, **OF_ALL},
    WhitenedCNN: {
        **{"channels": [[], [64, 0], [1] * 4], "bias_lr_factor": [0.0, -1.0, NAN], "head_lr_factor": [0.0, -1.0, NAN]},
        **OF_ALL,
    },
}


@ALL
def test_impossible_values(kind: type[ImageClassifier]) -> None:
    for field, values in IMPOSSIBLE[kind].items():
        for value in values:
            with pytest.raises(InputError, match=re.escape(f"{field}: {value!r} is not possible")):
                kind(**{field: value})


def test_layers_of_the_whitened_cnn() -> None:
    model: Any = WhitenedCNN(channels=[32, 16])
    group = "{0}.conv1 {0}.pool {0}.bn1 {0}.gelu1 {0}.conv2 {0}.bn2 {0}.gelu2 "
    names = "whiten gelu " + group.format("group1") + group.format("group2") + "maxpool flatten fc scale"
    assert list(layers_of(model)) == names.split()
    norms = [layer for layer in layers_of(model).values() if isinstance(layer, nn.BatchNorm2d)]
    assert [(bn.momentum, bn.eps, bn.weight.requires_grad, bn.bias.requires_grad) for bn in norms] == [
        (0.4, 1e-12, False, True)
    ] * 4
    model.whiten(images(100))
    for side in (9, 24, 28, 32):
        outputs = model(images(2)[..., :side, :side])
        assert outputs.shape == (2, 10)
    x = images(3)[:, :1].expand(-1, 24, -1, -1)
    first = model.network.group1.conv1
    torch.testing.assert_close(first(x)[:, :24], x)  # begins as the identity
    torch.testing.assert_close(model.network.scale(x), x / 9)


def test_the_first_layer_whitens() -> None:
    x = normalize(synthetic.make(train=True).images[:1_000])
    patches = F.conv2d(x, filters := whitening_filters(x)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(filters[12:], -filters[:12])
    covariance = patches[:12].cov()
    variance = covariance.diagonal()
    assert (variance < 1).all()  # by what keeps noise small
    assert (variance[-6:] > 0.99).all()
    assert (covariance - variance.diag()).abs().max() < 1e-3


def test_the_whitened_cnn_learns_its_biases_faster() -> None:
    settings: dict[str, Any] = {"lr": 0.5, "weight_decay": 0.1, "bias_lr_factor": 20.0, "head_lr_factor": 2.0}
    model: Any = WhitenedCNN(channels=[4], **settings, optimizer="sgd", momentum=0.0)
    groups, network = model.new_optimizer().param_groups, model.network
    learnt = [
        [network.group1.conv1.weight, network.group1.conv2.weight],
        [network.fc.weight],
        [network.whiten.bias, network.group1.bn1.bias, network.group1.bn2.bias],
    ]
    assert [[id(p) for p in group["params"]] for group in groups] == [[id(p) for p in each] for each in learnt]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.5, 0.1), (1.0, 0.05), (10.0, 0.005)]


def test_filters_are_computed_when_a_run_starts_and_kept_after() -> None:
    filters, data = "whiten.weight", CIFAR10DataModule(source="synthetic", train_size=200, val_size=0)
    model = WhitenedCNN(channels=[4], lr=0.1, optimizer="sgd")
    trainer().fit(model, data)
    wanted = whitening_filters(normalize(data.train.images))
    torch.testing.assert_close(model.network.get_parameter(filters).detach(), wanted)
    with torch.no_grad():
        model.network.get_parameter(filters).mul_(2)  # as those of a checkpoint, from other images
    trainer().fit(model, data)
    torch.testing.assert_close(model.network.get_parameter(filters).detach(), 2 * wanted)
    with pytest.raises(InputError, match=r"^model: no data module has the training images"):
        trainer().fit(WhitenedCNN(channels=[4]), loader(batch(4)), loader(batch(4)))
