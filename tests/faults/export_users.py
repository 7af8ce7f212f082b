"""Exports of what is no checkpoint, and ONNX files that are none, foreign or hostile."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from onnx import TensorProto, helper

from cifar_lightning.data import synthetic
from tests.faults.checkpoint_faults import OF_EACH_KIND, altered, refused
from tests.faults.processes import nobody
from tests.faults.steps import folder, pipe
from tests.faults.table import BEST, RUN, Damage, Fault, Table, damage

EXPORT = f"export --ckpt_path={RUN}"
NAMED = {"source": "synthetic", "classes": json.dumps(synthetic.CLASSES)}
NAMED |= {"architecture": "CNN", "run": "logs", "checkpoint": "best.ckpt"}
REMEDY = "give a file that `export` of this program wrote"


def constant(name: str, *values: int) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


INDICES = constant("indices", *range(10))
NODES = [
    helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Flatten", ["floats"], ["flat"]),
    helper.make_node("Gather", ["flat", "indices"], ["ten"], axis=1),
    helper.make_node("Softmax", ["ten"], ["probabilities"]),
]


def model(
    *,
    nodes: Sequence[Any] = NODES,
    metadata: dict[str, str] = NAMED,
    initializers: Sequence[Any] = (INDICES,),
    pixels: tuple[str, int, Sequence[str | int]] = ("images", TensorProto.UINT8, ["N", 3, 32, 32]),
    classes: int = 10,
    change: Callable[[Any], object] = lambda made: None,
) -> Damage:
    """Write an ONNX file; without arguments a good one, though of no use."""

    def make(path: Path) -> None:
        output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(nodes, "graph", [helper.make_tensor_value_info(*pixels)], [output], initializers)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        helper.set_model_props(made, metadata)
        change(made)
        path.write_bytes(made.SerializeToString())

    return make


def outside(location: str) -> Any:
    tensor = constant("indices", *range(10))
    tensor.ClearField("int64_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def looping(path: Path) -> None:
    """Write a file that would be at it for ever."""
    info = partial(helper.make_tensor_value_info, shape=[])
    states = [info("i", TensorProto.INT64), info("c", TensorProto.BOOL)]
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])], "body", states, [info("d", TensorProto.BOOL)]
    )
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    loop = helper.make_node("Loop", ["", "true"], [], body=body)
    damage({str(path): model(nodes=[*NODES, loop], initializers=[INDICES, true])})


def in_a_node(tensor: Any) -> Damage:
    return model(nodes=[helper.make_node("Constant", [], ["indices"], value=tensor), *NODES], initializers=[])


def wrong(title: str, damage: Damage, *says: str, command: str = "predict --model=a.onnx", **more: Any) -> Fault:
    return Fault(f"onnx: {title}", command, 2, (*says, REMEDY), {"a.onnx": damage}, **more)


def wrong_export(title: str, flags: str, *says: str, command: str = EXPORT, **more: Any) -> Fault:
    return Fault(f"export: {title}", f"{command} {flags}", 2, says, **more)


def function(made: Any) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    made.functions.append(helper.make_function("own", "Same", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))


def nan(weights: dict[str, torch.Tensor]) -> None:
    for tensor in weights.values():
        tensor.fill_(float("nan")) if tensor.is_floating_point() else None


FOREIGN_INPUT = "its input and output are not those of an image classifier"
DAMAGED = "damaged, or not an ONNX file that is complete in itself"
CLASSES = "it does not say what it was made of, and for which classes"
TABLE: Table = [
    "an export of no checkpoint: reader",
    *refused(OF_EACH_KIND, "export"),
    "flags of an export: parser",
    wrong_export("no checkpoint named", "", "command line: the following", "--ckpt_path", command="export"),
    wrong_export("a format that there is not", "--format=tflite", "tflite", "onnx", "safetensors"),
    wrong_export("a setting that there is not", "--quantize=int8", "quantize: there is no such setting"),
    wrong_export("a setting of another model", "--model.channels=[3]", "MLP has no channels"),
    "where an export goes: output",
    wrong_export("no folder", "--output=nowhere/a.onnx", "output: nowhere/a.onnx can't be written"),
    wrong_export("a folder", "--output=a.onnx", "output: a.onnx can't be written", files={"a.onnx": folder}),
    wrong_export("over its checkpoint", f"--force --output={BEST}", "output", "a name that ends in .onnx"),
    wrong_export("the suffix of another format", "--format=torch --output=a.onnx", "a name that ends in .pt2"),
    Fault("predict over another file", f"predict --ckpt_path={BEST} --output=a.csv", 2, ("a.csv is there already",),
          {"a.csv": b"mine"}),
    Fault("predict to no folder", f"predict --ckpt_path={BEST} --output=nowhere/a.csv", 2, ("nowhere/a.csv can't be",)),
    Fault("predict to a file", f"predict --ckpt_path={BEST} --output=a.csv", 0, ("written to a.csv",), {}, ("a.csv",)),
    "no file that is ONNX: reader",
    wrong("a folder", folder, "a.onnx: "),
    wrong("a pipe", pipe, "a.onnx: "),
    wrong("missing", lambda path: None, "a.onnx: there is no such file"),
    wrong("unreadable", lambda path: path.touch(mode=0), "a.onnx: can't be read", child=nobody),
    wrong("text", "hello", f"a.onnx: {DAMAGED}"),
    wrong("empty", b"", "a.onnx: "),
    wrong("a checkpoint", lambda path: path.write_bytes(Path(BEST).read_bytes()), DAMAGED),
    "a file of another program: what export writes",
    wrong("no metadata", model(metadata={}), CLASSES),
    wrong("classes of others", model(metadata={**NAMED, "classes": '["a", "b"]'}), CLASSES),
    wrong("an unknown source", model(metadata={**NAMED, "source": "mnist"}), CLASSES),
    wrong("escapes", model(metadata={**NAMED, "run": "\x1b[2J"}), CLASSES),
    wrong("floats", model(pixels=("images", TensorProto.FLOAT, ["N", 3, 32, 32])), FOREIGN_INPUT),
    wrong("larger images", model(pixels=("images", TensorProto.UINT8, ["N", 3, 224, 224])), FOREIGN_INPUT),
    wrong("another name", model(pixels=("x", TensorProto.UINT8, ["N", 3, 32, 32]), nodes=[
        helper.make_node("Identity", ["x"], ["images"]), *NODES]), FOREIGN_INPUT),
    wrong("a thousand classes", model(classes=1000, initializers=[constant("indices", *range(1000))]), FOREIGN_INPUT),
    wrong("one image alone", model(pixels=("images", TensorProto.UINT8, [1, 3, 32, 32])), FOREIGN_INPUT),
    "hostile content: what export writes",
    *(
        wrong(f"data in {location}", model(initializers=[outside(location)]), DAMAGED)
        for location in ("/etc/hostname", "../canary")
    ),
    Fault("onnx: data beside it", "predict --model=a.onnx", 2, (DAMAGED,),
          {"a.onnx": model(initializers=[outside("beside.data")]), "beside.data": bytes(80)}),
    wrong("more memory than there is", model(nodes=[helper.make_node("ConstantOfShape", ["large"], ["a"]), *NODES],
          initializers=[INDICES, constant("large", 2**20, 2**20, 2**10)]), "a.onnx: "),
    wrong("data elsewhere in a node", in_a_node(outside("/etc/hostname")), DAMAGED),
    wrong("a loop without end", looping, "functions, conditions or loops"),
    wrong("a function", model(change=function), "functions, conditions or loops"),
    wrong("an operator of others", model(nodes=[helper.make_node("Own", ["images"], ["a"], domain="own"), *NODES]),
          DAMAGED),
    wrong("an operator that fails", model(initializers=[constant("indices", *[5000] * 10)]),
          "ONNX Runtime can't run it"),
    "both, or for another command: command line",
    Fault("onnx and a checkpoint", f"test --model=a.onnx --ckpt_path={BEST}", 2, ("model: a.onnx and a checkpoint",),
          {"a.onnx": model()}),
    Fault("onnx for validate", "validate --model=a.onnx", 2, ("model: a.onnx is an exported",), {"a.onnx": model()}),
    Fault("onnx for fit", "fit --model a.onnx", 2, ("model: a.onnx is an exported file",), {"a.onnx": model()}),
    Fault("onnx with a setting", "predict --model=a.onnx --model.views=2", 2, ("model.views",), {"a.onnx": model()}),
    "a good file: reader",
    Fault("a good onnx", "predict --model=a.onnx", 0, ("written to predictions.csv", "ms per image by ONNX Runtime"),
          {"a.onnx": model()}, ("predictions.csv",)),
    "weights that are no numbers: parity",
    Fault("export of NaN", EXPORT, 1, (f"{RUN}/checkpoints/best.onnx: in batches of 1 it predicts test/0000",),
          {BEST: altered(nan, "state_dict")}),
]  # fmt: skip
