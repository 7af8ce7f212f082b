"""The formats: each makes a file's content of a model, and a function from pixels to probabilities of that content."""

import io
import json
import os
from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cifar_lightning.data.transforms import normalize
from cifar_lightning.models import ImageClassifier

Pixels = NDArray[np.uint8]  # shape (N, 3, 32, 32), RGB, 0 to 255
Probabilities = NDArray[np.float32]  # shape (N, 10)
Predict = Callable[[Pixels], Probabilities]
Metadata = Mapping[str, str]


class Predictor(nn.Module):
    """All that an image goes through in `predict`: normalization, the network on each of its views, softmax."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, float32, shape (N, 10), of images, uint8, shape (N, 3, 32, 32)."""
        return self.model.classify(normalize(images)).softmax(1)


def by(module: Callable[[Tensor], Tensor]) -> Predict:
    """Return a module as a function of arrays."""

    def predict(images: Pixels) -> Probabilities:
        with torch.inference_mode():
            return cast(Probabilities, module(torch.from_numpy(images)).numpy())

    return predict


def trace(model: ImageClassifier) -> ExportedProgram:
    """Return the graph of all operations, for any number of images."""
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    normalize(example)  # it keeps its constants from the first call, which must not be one that only traces
    program = torch.export.export(Predictor(model), (example,), dynamic_shapes={"images": {0: Dim("N")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of our code with this machine's paths
    return program


def _write_onnx(model: ImageClassifier, metadata: Metadata) -> bytes:
    import onnx

    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["probabilities"]}
    program = torch.onnx.export(trace(model), dynamo=True, verbose=False, **names)
    assert program
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(metadata))
    return cast(bytes, proto.SerializeToString())


def _read_onnx(content: bytes) -> Predict:
    session = onnx_session(content)
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def onnx_session(content: bytes) -> Any:
    """Return an InferenceSession of ONNX Runtime on the CPU, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is raised
    # Where it looks for weights outside of the file: nowhere.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def _write_torch(model: ImageClassifier, metadata: Metadata) -> bytes:
    torch.export.save(trace(model), buffer := io.BytesIO(), extra_files=dict(metadata))
    return buffer.getvalue()


def _read_torch(content: bytes) -> Predict:
    return by(torch.export.load(io.BytesIO(content)).module())


def _write_safetensors(model: ImageClassifier, metadata: Metadata) -> bytes:
    from safetensors.torch import save

    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return save(weights, dict(metadata))


def _read_safetensors(content: bytes) -> Predict:
    """Rebuild the model: its class and arguments are in the header, a JSON of as many bytes as the first eight say."""
    from safetensors.torch import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    settings = json.loads(header["__metadata__"]["settings"])["model"]
    model = resolve_name(settings["class_path"])(**settings["init_args"])
    model.load_state_dict(load(content))
    return by(Predictor(model))


class Format(NamedTuple):
    """A kind of file."""

    suffix: str
    write: Callable[[ImageClassifier, Metadata], bytes]
    read: Callable[[bytes], Predict]


FORMATS = {
    "onnx": Format(".onnx", _write_onnx, _read_onnx),
    "torch": Format(".pt2", _write_torch, _read_torch),
    "safetensors": Format(".safetensors", _write_safetensors, _read_safetensors),
}
