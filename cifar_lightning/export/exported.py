"""`test` and `predict` by an exported ONNX file, in the place of a checkpoint's model."""

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lightning.cli.launch import Processes
from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.cli.starting_point import StartingPoint
from cifar_lightning.data import Batch, cifar10, synthetic
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import InputError
from cifar_lightning.export.formats import onnx_session
from cifar_lightning.export.packages import check_installed
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.layout import RunFolder

REMEDY = "give a file that `export` of this program wrote"
CLASSES = {"cifar10": cifar10.CLASSES, "synthetic": synthetic.CLASSES}
INPUT, OUTPUT = ("images", "tensor(uint8)", [3, 32, 32]), ("probabilities", "tensor(float)", [10])


def read(path: Path) -> tuple[Any, dict[str, str]]:
    """Return a file's InferenceSession and metadata; an `InputError` unless it is of the form that `export` writes.

    It may come from anywhere: other files that it refers to are not opened, and it holds no loops.
    """
    check_installed("model", "onnx")
    import onnx

    if not path.is_file():
        raise InputError(str(path), "there is no such file", REMEDY)
    try:
        content = path.read_bytes()
        model = onnx.load_from_string(content)
        metadata = {each.key: each.value for each in model.metadata_props}
        cause = _foreign(model, metadata)
        session = None if cause else onnx_session(content)
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", REMEDY) from error
    except Exception as error:  # broken bytes make protobuf and ONNX Runtime raise anything
        raise InputError(str(path), "damaged, or not an ONNX file", REMEDY) from error
    if session:
        shapes = [(each.name, each.type, each.shape[1:]) for each in (*session.get_inputs(), *session.get_outputs())]
        cause = "" if shapes == [INPUT, OUTPUT] else "its input and output are not those of an image classifier"
    if cause:
        raise InputError(str(path), cause, REMEDY)
    return session, metadata


def _foreign(model: Any, metadata: dict[str, str]) -> str:
    """Return what is in an ONNX model that `export` does not write; empty if there is nothing."""
    classes = CLASSES.get(metadata.get("source", ""))
    if metadata.get("classes") != json.dumps(classes) or not all(map(str.isprintable, metadata.values())):
        return "it does not say what its classes are"
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(model.graph)):
        return "it refers to other files"
    attributes = [each for node in model.graph.node for each in node.attribute]
    if model.functions or any(each.HasField("g") or each.graphs for each in attributes):
        return "it holds functions, conditions or loops"
    return ""


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += (attribute.sparse_tensor, *attribute.sparse_tensors)
    for each in sparse:
        yield from (each.values, each.indices)


class Exported(ImageClassifier):
    """The graph of an exported file.

    Args:
        path: The file.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path, self.network = path, nn.Identity()
        self.session, self.metadata = read(Path(path))
        self.images, self.seconds = 0, 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms of the probabilities, shape (N, 10), of images, uint8, shape (N, 3, 32, 32)."""
        pixels, started = images.cpu().numpy(), time.perf_counter()
        try:
            (probabilities,) = self.session.run(["probabilities"], {"images": pixels})
        except Exception as error:
            raise InputError(self.path, "ONNX Runtime can't run it", REMEDY) from error
        self.seconds, self.images = self.seconds + time.perf_counter() - started, self.images + len(pixels)
        if probabilities.shape != (len(pixels), 10):
            raise InputError(self.path, "its output is not ten probabilities per image", REMEDY)
        smallest = torch.finfo(torch.float32).tiny  # softmax gives 0 below
        return torch.from_numpy(probabilities).clamp_min(smallest).log().to(images.device)


class Pixels(CIFAR10DataModule):
    """Leaves images as they are: the file normalizes them."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch


class ExportedCLI(CLI):
    """`test` and `predict` as of a checkpoint: what comes after the model is the same."""

    datamodule_kind = Pixels

    def __init__(self, args: Sequence[str], processes: Processes | None = None) -> None:
        parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--model", type=Path)
        given, rest = parser.parse_known_args(args)
        self.file: Path = given.model
        super().__init__(rest, processes)

    def find_start(self, command: str, given: Namespace, rest: Sequence[str]) -> StartingPoint:
        if given.ckpt_path or given.resume:
            raise InputError("model", f"{self.file} and a checkpoint", "give one of them")
        _, metadata = read(self.file)
        config = {
            "model": {"class_path": f"{Exported.__module__}.Exported", "init_args": {"path": str(self.file)}},
            "data": {"source": metadata["source"]},
            "trainer": {"accelerator": "cpu", "precision": "32-true"},
        }
        architecture = metadata.get("architecture", "").rpartition(".")[2]
        print(f"{self.file}: {architecture} of {metadata.get('run')}/{metadata.get('checkpoint')}")
        return StartingPoint(RunFolder.of_checkpoint(self.file), None, [f"--config={json.dumps(config)}"], {})

    def _print_speed(self) -> None:
        model: Any = self.model
        threads = torch.get_num_threads()
        ms = 1000 * model.seconds / max(1, model.images)
        print(f"{ms:.3f} ms per image by ONNX Runtime on this machine (threads: {threads})")

    after_test = after_predict = _print_speed
