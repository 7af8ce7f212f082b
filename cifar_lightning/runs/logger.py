"""TensorBoard's logger, in a run folder of its own."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


class RunLogger(TensorBoardLogger):
    """TensorBoard without an empty hparams.yaml beside the config.yaml that holds them all."""

    def save(self) -> None:
        """Flushes the event file."""
        self.experiment.flush()

    def _get_next_version(self) -> int:
        """The first version whose folder was not there: of two runs that start at once, each has its own."""
        version, runs = int(super()._get_next_version()), Path(self.root_dir)
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (runs / f"version_{version}").mkdir()
                return version
            except FileExistsError:
                version += 1
