"""`test` and `predict` by an exported ONNX file, in the place of a checkpoint's model."""

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
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
from cifar_lightning.export.command import check_installed
from cifar_lightning.export.formats import onnx_session
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.layout import RunFolder

REMEDY = "give a file that `export` of this program wrote"
CLASSES = {"cifar10": json.dumps(cifar10.CLASSES), "synthetic": json.dumps(synthetic.CLASSES)}
# Name, type, size of a batch (a name: any), and of an image or its probabilities.
INPUT, OUTPUT = ("images", "tensor(uint8)", str, 3, 32, 32), ("probabilities", "tensor(float)", str, 10)


def read(path: Path) -> tuple[Any, dict[str, str]]:
    """Return a file's InferenceSession and metadata; an `InputError` unless it is of the form that `export` writes.

    It may come from anywhere: no other file that it refers to is opened, and nothing in it can run for ever.
    """
    check_installed("model", "onnx")
    import onnx

    def refused(cause: str) -> InputError:
        return InputError(str(path), cause, REMEDY)

    if not path.is_file():
        raise refused("there is no such file")
    try:
        content = path.read_bytes()
        model = onnx.load_from_string(content)
        attributes = [each for node in model.graph.node for each in node.attribute]
        loops = model.functions or any(each.HasField("g") or each.graphs for each in attributes)
        session = None if loops else onnx_session(content)
    except OSError as error:
        raise refused(f"can't be read ({error.strerror})") from error
    except Exception as error:  # broken bytes make protobuf and ONNX Runtime raise anything
        raise refused("damaged, or not an ONNX file that is complete in itself") from error
    if session is None:
        raise refused("it holds functions, conditions or loops")
    if cause := _foreign(session):
        raise refused(cause)
    return session, session.get_modelmeta().custom_metadata_map


def _foreign(session: Any) -> str:
    """Return in what a file is not one that `export` writes; empty if it may be."""
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    lacking = {"architecture", "checkpoint", "source", "classes"} - {*metadata}
    known = not lacking and CLASSES.get(metadata["source"]) == metadata["classes"]
    if not known or not "".join(metadata.values()).isprintable():
        return "it does not say what it was made of, and for which classes"
    ends = (*session.get_inputs(), *session.get_outputs())
    if [(end.name, end.type, *map(type, end.shape[:1]), *end.shape[1:]) for end in ends] != [INPUT, OUTPUT]:
        return "its input and output are not those of an image classifier"
    return ""


class Exported(ImageClassifier):
    """The graph of an exported file.

    Args:
        path: The file.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path, self.network, self.session = path, nn.Identity(), read(Path(path))[0]
        self.images, self.seconds = 0, 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithms of the probabilities, shape (N, 10), of images, uint8, shape (N, 3, 32, 32)."""
        pixels, started = images.cpu().numpy(), time.perf_counter()
        try:
            (probabilities,) = self.session.run(["probabilities"], {"images": pixels})
        except Exception as error:
            raise InputError(self.path, "ONNX Runtime can't run it", REMEDY) from error
        self.seconds, self.images = self.seconds + time.perf_counter() - started, self.images + len(pixels)
        smallest = torch.finfo(torch.float32).tiny  # below it, softmax gives 0
        return torch.from_numpy(probabilities).clamp_min(smallest).log().to(images.device)


class RawImages(CIFAR10DataModule):
    """Leaves images as they are: the file normalizes them."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch


class ExportedCLI(CLI):
    """`test` and `predict` as of a checkpoint: what comes after the model is the same."""

    datamodule_kind = RawImages
    file: Path

    def __init__(self, args: Sequence[str], processes: Processes | None = None) -> None:
        parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument("--model", type=Path, dest="file")
        _, rest = parser.parse_known_args(args, self)
        super().__init__(rest, processes)

    def find_start(self, command: str, given: Namespace, rest: Sequence[str]) -> StartingPoint:
        if command not in ("test", "predict"):
            raise InputError("model", f"{self.file} is an exported file", "use it with test or predict")
        if given.ckpt_path or given.resume:
            raise InputError("model", f"{self.file} and a checkpoint", "give one of them")
        _, metadata = read(self.file)
        config = {
            "model": {"class_path": f"{Exported.__module__}.Exported", "init_args": {"path": str(self.file)}},
            "data": {"source": metadata["source"]},
            "trainer": {"accelerator": "cpu", "precision": "32-true"},
        }
        architecture = metadata["architecture"].rpartition(".")[2]
        print(f"{self.file}: {architecture}, exported from {metadata['checkpoint']}")
        return StartingPoint(RunFolder.of_checkpoint(self.file), None, [f"--config={json.dumps(config)}"], {})

    def after_test(self) -> None:
        """Print how fast the file is."""
        model: Any = self.model
        ms = 1000 * model.seconds / max(1, model.images)
        print(f"{ms:.3f} ms per image by ONNX Runtime on this machine (threads: {torch.get_num_threads()})")

    after_predict = after_test
