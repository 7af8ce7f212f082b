"""Callbacks of a run: epoch seeds, history, checkpoints, signals, divergence, TensorBoard, console and result files."""

from cifar_lightning.callbacks.checkpoints import Checkpoints as Checkpoints
from cifar_lightning.callbacks.console import Console as Console
from cifar_lightning.callbacks.console import ProgressBar as ProgressBar
from cifar_lightning.callbacks.divergence import Divergence as Divergence
from cifar_lightning.callbacks.environment_check import EnvironmentCheck as EnvironmentCheck
from cifar_lightning.callbacks.epoch_seed import EpochSeed as EpochSeed
from cifar_lightning.callbacks.history import History as History
from cifar_lightning.callbacks.predictions import PredictionsFile as PredictionsFile
from cifar_lightning.callbacks.stopping import Stopping as Stopping
from cifar_lightning.callbacks.tensorboard import TensorBoardExtras as TensorBoardExtras
from cifar_lightning.callbacks.test_results import TestResults as TestResults
