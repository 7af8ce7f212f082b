"""What watches a run: its seeds, its history, its pictures and its words."""

from cifar_lightning.callbacks.console import Console, ProgressBar
from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.predictions import PredictionsFile
from cifar_lightning.callbacks.seeding import EpochSeed
from cifar_lightning.callbacks.tensorboard import TensorBoardExtras
from cifar_lightning.callbacks.test_report import TestReport

__all__ = ["Console", "EpochSeed", "History", "PredictionsFile", "ProgressBar", "TensorBoardExtras", "TestReport"]
