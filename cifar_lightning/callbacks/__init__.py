"""What watches a run: its seeds, its gradients, its history, what it keeps, its pictures and its words."""

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.callbacks.console import Console, ProgressBar
from cifar_lightning.callbacks.divergence import Divergence
from cifar_lightning.callbacks.environment_check import Conditions
from cifar_lightning.callbacks.epoch_seed import EpochSeed
from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.predictions import PredictionsFile
from cifar_lightning.callbacks.stopping import Stopping
from cifar_lightning.callbacks.tensorboard import TensorBoardExtras
from cifar_lightning.callbacks.test_results import TestReport

__all__ = [
    "Checkpoints",
    "Conditions",
    "Console",
    "Divergence",
    "EpochSeed",
    "History",
    "PredictionsFile",
    "ProgressBar",
    "Stopping",
    "TensorBoardExtras",
    "TestReport",
]
