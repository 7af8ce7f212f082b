"""A study's plan joined with its records: what the report asks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cifar_lightning.results import records
from cifar_lightning.results.records import Point, Record, Test


@dataclass(frozen=True)
class Run:
    """A point with what came of it."""

    point: Point
    record: Record

    @property
    def is_done(self) -> bool:
        """Whether all epochs of the point are there, whatever came of a longer run behind them."""
        return self.record.status == "done" or len(self.record.rows) >= self.point.epochs

    @property
    def reason(self) -> str:
        """Why it failed, if only in its test; nothing if a longer run did that, in an epoch behind the point's."""
        own = not self.is_done or self.record.settings.get("trainer.max_epochs") == self.point.epochs
        return self.record.reason if own else ""

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The curves, up to the point's last epoch."""
        return self.record.rows[: self.point.epochs]

    @property
    def test(self) -> Test | None:
        """What the test set said, unless the run goes on beyond this point."""
        return self.record.test if len(self.record.rows) == len(self.rows) else None

    @cached_property
    def best(self) -> dict[str, float]:
        """The row of the highest `val/acc`, the first of equals."""
        return max(self.rows, key=lambda row: (row["val/acc"], -row["epoch"]))

    @property
    def last(self) -> dict[str, float]:
        """The row of the last epoch."""
        return self.rows[-1]

    @property
    def seconds(self) -> float:
        """How long its epochs took."""
        return sum(row["epoch_seconds"] for row in self.rows)


@dataclass(frozen=True)
class Variant:
    """The runs of one setting that differ in their seed alone.

    Attributes:
        experiment: Its name.
        name: What varies, in words.
        varied: What varies, dotted.
        runs: Those that are done, in the order of their seeds.
        failed: Those that failed.
        pending: Seeds that have not been run.
    """

    experiment: str
    name: str
    varied: dict[str, Any]
    runs: tuple[Run, ...]
    failed: tuple[Run, ...]
    pending: tuple[int, ...]


@dataclass(frozen=True)
class Study(records.Study):
    """A plan with its records, for the report."""

    @cached_property
    def experiments(self) -> dict[str, list[Variant]]:
        """The variants of each experiment, in the order of the configuration."""
        points: dict[str, dict[str, list[Point]]] = {}
        for point in self.plan.points:
            points.setdefault(point.experiment, {}).setdefault(point.variant, []).append(point)
        return {name: [self._variant(group) for group in groups.values()] for name, groups in points.items()}

    def _variant(self, points: list[Point]) -> Variant:
        points = sorted(points, key=lambda point: point.seed)
        runs = [Run(point, self.records[point.address]) for point in points if point.address in self.records]
        return Variant(
            points[0].experiment,
            points[0].variant,
            points[0].varied,
            tuple(run for run in runs if run.is_done),
            tuple(run for run in runs if not run.is_done),
            tuple(point.seed for point in points if point.address not in self.records),
        )
