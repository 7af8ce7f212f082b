"""`python -m cifar_lightning export`: a file that predicts what a checkpoint predicts, without this program."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cifar_lightning.errors import InputError
from cifar_lightning.utils.one_line_parser import OneLineParser

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": (), "safetensors": ("safetensors",)}


def export(args: Sequence[str]) -> int:
    """Write the file once it has predicted the test set as the checkpoint does; return the exit status."""
    parser = OneLineParser(
        "python -m cifar_lightning export",
        description="Write a file that makes probabilities (float32, N x 10) of pixels (uint8, N x 3 x 32 x 32). It is "
        "kept only if it predicts all 10,000 test images as the checkpoint does, in batches of 1, 7 and 500.",
        epilog="Other flags are those of `predict`: --data.root for the test images, --config for your own model.",
        allow_abbrev=False,
    )
    parser.add_argument("--ckpt_path", required=True, metavar="RUN", help="a run's folder, for its best, or a .ckpt")
    parser.add_argument("--format", choices=PACKAGES, default="onnx", help="torch: for torch.export.load")
    parser.add_argument("--output", type=Path, metavar="FILE", help="by default beside the checkpoint, named as it is")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    options, flags = parser.parse_known_args(args)
    check_installed("format", options.format)
    from cifar_lightning.cli.quiet import be_quiet  # these import Lightning, which takes seconds
    from cifar_lightning.export.exporter import Exporter
    from cifar_lightning.utils import performance

    be_quiet()
    performance.prepare()
    Exporter(options, flags)
    return 0


def check_installed(field: str, name: str) -> None:
    """Raise an `InputError` if a package of a format is missing."""
    for package in PACKAGES[name]:
        if find_spec(package) is None:
            cause = f"{name} needs {package}, which is not installed"
            raise InputError(field, cause, "pip install -c .github/constraints.txt -e '.[export]'")
