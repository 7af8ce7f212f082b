"""The packages of the extra `export`, which need not be installed."""

from importlib.util import find_spec

from cifar_lightning.errors import InputError

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": (), "safetensors": ("safetensors",)}


def check_installed(field: str, name: str) -> None:
    """Raise an `InputError` if a package of a format is missing."""
    for package in PACKAGES[name]:
        if find_spec(package) is None:
            cause = f"{name} needs {package}, which is not installed"
            raise InputError(field, cause, "pip install -c .github/constraints.txt -e '.[export]'")
