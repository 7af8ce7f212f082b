"""CIFAR-10 for Lightning: training, validation and test batches, normalized on the device."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, get_args

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.accelerators import CUDAAccelerator

from cifar_lightning.data import Batch, ImageSet, cifar10, synthetic, user_images
from cifar_lightning.data.loader import BatchLoader, steps_per_epoch
from cifar_lightning.data.split import stratified_sample, stratified_split
from cifar_lightning.data.transforms import flip_and_shift, normalize, resize
from cifar_lightning.errors import InputError, check

Source = Literal["cifar10", "synthetic", "auto"]
Augmentation = Literal["none", "flip-shift", "alternating-flip"]


def data_root(root: str | None) -> Path:
    """Return the data folder: `root`, else the environment variable CIFAR10_ROOT, else `data`."""
    return Path(root or os.environ.get("CIFAR10_ROOT") or "data").expanduser()


def resolve_source(source: Source, root: Path, mirrors: Sequence[str]) -> Source:
    """Resolve `auto`, downloading CIFAR-10 if it is missing, and print why if it has to be the synthetic stand-in."""
    if source != "auto":
        return source
    try:
        cifar10.ensure(root, mirrors)
    except InputError as error:
        print(f"{error.cause}: using the synthetic stand-in instead of CIFAR-10", file=sys.stderr)
        return "synthetic"
    return "cifar10"


class CIFAR10DataModule(LightningDataModule):
    """The training set split in two, and the official test set, which only `test` and `predict` ever read.

    Images stay bytes in memory; a batch is a slice of a permutation; normalization and augmentation run on the batch,
    on the device, in a hook of this module: of its loaders alone a model normalizes the bytes, and nothing augments
    them. The validation set is stratified and always the same, whatever the seed.

    Args:
        root: Folder that has or will have `cifar-10-batches-py`; null is CIFAR10_ROOT from the environment, or `data`.
        source: `cifar10` downloads what is missing; `synthetic` is a stand-in made on the spot, for tests and machines
            with no network; `auto` is CIFAR-10 if on disk or reachable, else synthetic.
        batch_size: Images per training step, over all devices, at least 1; a remainder of one image is left out.
        eval_batch_size: Images per batch wherever nothing is learnt, at least 1.
        val_size: Images set aside from the 50,000 for validation, 0 to 49,990; 0 leaves nothing to validate on.
        train_size: Images to train on, drawn evenly from what validation leaves; null is all of it.
        train_clean_size: Training images measured again in evaluation mode after each epoch, always the same, so that
            training and validation compare like with like; 0 leaves this out.
        augment: `none`; `flip-shift`: each image is flipped with probability 1/2, and shifted; `alternating-flip`: half
            of the images are flipped in the first epoch, the other half in the next, and so on, and all are shifted.
        max_shift: Pixels that an image is shifted by at most, down and right, 0 to 31.
        resolutions: Pixels a side that training images are scaled to in the first epochs, 16 to 32 for each epoch; in
            later ones they stay as they are. Small images cost less, and are enough at first. For `WhitenedCNN`.
        images: Images, folders of images or patterns such as `pics/*.png` that `predict` classifies; null is the test
            set.
        num_workers: Processes that cut batches; 0 is fastest, and the batches are the same with any number.
        seed: Order of the training images; on the command line it follows `seed_everything`.
        mirrors: Where to download the archive from, in order; its checksum is verified wherever it comes from.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        source: Source = "cifar10",
        batch_size: int = 100,
        eval_batch_size: int = 500,
        val_size: int = 10_000,
        train_size: int | None = None,
        train_clean_size: int = 5_000,
        augment: Augmentation = "none",
        max_shift: int = 4,  # the usual for 32 pixels (He et al. 2015, section 4.2)
        resolutions: Sequence[int] = (),
        images: str | list[str] | None = None,
        num_workers: int = 0,
        seed: int = 0,
        mirrors: Sequence[str] = cifar10.MIRRORS,
    ) -> None:
        super().__init__()
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        check(eval_batch_size >= 1, "eval_batch_size", eval_batch_size, "1 or more")
        check(0 <= val_size <= 49_990, "val_size", val_size, "0 to 49990, which leaves one image of each class")
        available = 50_000 - val_size
        check(train_size is None or 10 <= train_size <= available, "train_size", train_size, f"10 to {available}")
        check(0 <= train_clean_size <= 50_000, "train_clean_size", train_clean_size, "0 to 50000")
        check(augment in get_args(Augmentation), "augment", augment, " or ".join(get_args(Augmentation)))
        check(0 <= max_shift <= 31, "max_shift", max_shift, "0 to 31")
        check(all(16 <= side <= 32 for side in resolutions), "resolutions", resolutions, "numbers from 16 to 32")
        check(images not in ([], ""), "images", images, "the names of images or folders")
        check(num_workers >= 0, "num_workers", num_workers, "0 or more")
        self.save_hyperparameters(logger=False)
        self.root, self.source, self.mirrors = data_root(root), source, tuple(mirrors)
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.val_size, self.train_size, self.train_clean_size = val_size, train_size, train_clean_size
        self.augment, self.max_shift, self.resolutions, self.seed = augment, max_shift, tuple(resolutions), seed
        self.user_images = [images] if isinstance(images, str) else images
        self.refused: list[InputError] = []  # user images that `predict` could not read
        self.prepared = False
        self.train_loader: BatchLoader | None = None
        self.eval_loaders: list[BatchLoader] = []
        self.resumed: dict[str, int] = {}  # the state of the loader in the checkpoint

    @classmethod
    def of(cls, trainer: Trainer) -> Self:
        data = getattr(trainer, "datamodule", None)
        assert isinstance(data, cls), "this project's callbacks need its data module"
        return data

    @property
    def description(self) -> str:
        """One line on where the images are from; it never lets the stand-in pass for the real thing."""
        if self.source == "synthetic":
            return "SYNTHETIC stand-in images, not CIFAR-10: the metrics say nothing about CIFAR-10"
        return f"CIFAR-10 from {self.root}"

    @property
    def classes(self) -> tuple[str, ...]:
        return synthetic.CLASSES if self.source == "synthetic" else cifar10.CLASSES

    def prepare_data(self) -> None:
        if not self.prepared:  # verifying 177 MB takes 0.4 s, and the Trainer calls it once more
            if self.source == "cifar10":
                cifar10.ensure(self.root, self.mirrors)
            resolve_source(self.source, self.root, self.mirrors)
        self.prepared = True

    def setup(self, stage: str) -> None:
        """Read what the stage needs into memory, and nothing else: the test set only for `test` and `predict`."""
        if self.source == "auto":
            self.source = "synthetic" if cifar10.faults(self.root) else "cifar10"
        if stage in ("fit", "validate"):
            everything = self._read(train=True)
            rows, val_rows = stratified_split(everything.labels, self.val_size)
            if self.train_size is not None:
                rows = rows[stratified_sample(everything.labels[rows], self.train_size)]
            self.train, self.val = everything.take(rows), everything.take(val_rows)
            learnt = self.train.labels[: self._images_to_overfit]
            clean_rows = stratified_sample(learnt, min(self.train_clean_size, len(learnt)))
            self.train_clean = self.train.take(clean_rows)
        elif stage == "test":
            self.test = self._read(train=False)
        elif stage == "predict":
            if self.user_images:
                self.predict_names, images, self.refused = user_images.load(self.user_images)
                self.predict = ImageSet(images, torch.full((len(images),), -1))
            else:
                self.predict = self._read(train=False)
                self.predict_names = [f"test/{row:04d}" for row in range(len(self.predict.labels))]

    def train_dataloader(self) -> BatchLoader:
        """Return the training set: in an order of its own each epoch, or as it lies where the Trainer is to overfit."""
        seed = None if self._images_to_overfit else self.seed
        self.train_loader = self._loader(self.train, self.batch_size, training=True, seed=seed)
        if self.resumed:
            self.train_loader.load_state_dict(self.resumed)
            self.resumed = {}  # a later Trainer begins anew
        return self.train_loader

    def val_dataloader(self) -> list[BatchLoader]:
        """Return the validation set, then the fixed part of the training set; neither if nothing is set aside."""
        sets = [self.val, self.train_clean] if self.train_clean_size else [self.val]
        self.eval_loaders = [self._loader(images, self.eval_batch_size) for images in sets if self.val_size]
        return self.eval_loaders

    def test_dataloader(self) -> BatchLoader:
        self.eval_loaders = [loader := self._loader(self.test, self.eval_batch_size)]
        return loader

    def predict_dataloader(self) -> BatchLoader:
        self.eval_loaders = [loader := self._loader(self.predict, self.eval_batch_size)]
        return loader

    def teardown(self, stage: str) -> None:
        for loader in (self.train_loader, *self.eval_loaders):
            if loader:
                loader.close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("")  # which the Trainer then leaves out

    def state_dict(self) -> dict[str, int]:
        return self.train_loader.state_dict() if self.train_loader else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        # The Trainer would tell the loader itself, but not if a schedule has asked for its length before.
        self.resumed = state_dict

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training only) and normalize the images, on the device: float32, shape (B, 3, 32, 32)."""
        images = batch.images
        if self.trainer is None or not self.trainer.training:
            return batch._replace(images=normalize(images))
        epoch = self.trainer.current_epoch
        if self.augment != "none":
            alternates = epoch if self.augment == "alternating-flip" else None
            images = flip_and_shift(images, batch.start, batch.size, batch.seed, self.max_shift, alternates)
        images = normalize(images)
        if epoch < len(self.resolutions):
            images = resize(images, self.resolutions[epoch])
        return batch._replace(images=images)

    def _read(self, *, train: bool) -> ImageSet:
        return synthetic.make(train=train) if self.source == "synthetic" else cifar10.load(self.root, train=train)

    @property
    def _images_to_overfit(self) -> int | None:
        """Return how many images `overfit_batches` leaves to train on: the first; None where it is not set."""
        limit: int | float = getattr(self.trainer, "overfit_batches", 0)
        return self.batch_size * steps_per_epoch(len(self.train.labels), self.batch_size, limit) if limit else None

    def _loader(
        self, images: ImageSet, batch_size: int, *, training: bool = False, seed: int | None = None
    ) -> BatchLoader:
        process, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return BatchLoader(
            images,
            batch_size,
            training=training,
            seed=seed,
            process=process,
            processes=processes,
            num_workers=self.num_workers,
            pin_memory=self.trainer is not None and isinstance(self.trainer.accelerator, CUDAAccelerator),
        )
