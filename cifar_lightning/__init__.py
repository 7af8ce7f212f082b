"""An MLP and a CNN on CIFAR-10 in PyTorch Lightning."""

# What Python code uses: these import no PyTorch, `fit` does so when it is called.
from cifar_lightning.cli.python_api import Result as Result
from cifar_lightning.cli.python_api import fit as fit
from cifar_lightning.errors import InputError as InputError
from cifar_lightning.errors import Interrupted as Interrupted
from cifar_lightning.errors import RunError as RunError
