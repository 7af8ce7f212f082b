"""The figures and tables that come of known times."""

from typing import Any

import pytest

from cifar_lightning.benchmark.table import MEANINGS, startup_table, summary, table
from cifar_lightning.benchmark.timing import Turn

MIB = 2**20
SETTING = {
    "model": "CNN",
    "parameters": 1234,
    "batch_size": 50,
    "train_images": 990,  # 20 steps, the last one of 40 images
    "source": "synthetic",
    "device": "cpu",
    "precision": "32-true",
    "threads": 2,
}
# Powers of two: no quotient of these is rounded.
SECONDS = {"plain": [8.0, 4.0, 16.0], "ours": [1.0, 2.0, 4.0], "loop": [0.5, 0.5, 1.0], "limit": [0.25, 1.0, 0.5]}
STEPS = {"plain": 20, "ours": 20, "loop": 20, "limit": 40}


def turns(seconds: dict[str, list[float]], device_bytes: int | None = None) -> dict[str, list[Any]]:
    """As they come: each turn holds the peak so far, which grows by 100 MiB a turn."""
    return {
        way: [Turn(value, STEPS[way], 100 * MIB * i + 1, device_bytes) for i, value in enumerate(those, start=1)]
        for way, those in seconds.items()
    }


def cells(line: str) -> list[str]:
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [cell.strip() for cell in line[1:-1].split("|")]


def markdown(text: str) -> list[str]:
    """The lines of its one table, after a look at their form."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    bars = {tuple(i for i, letter in enumerate(line) if letter == "|") for line in lines}
    assert len(bars) == 1
    assert all(set(cell) <= set("-:") and len(cell) >= 3 for cell in cells(lines[1]))
    return lines


def test_seconds_become_figures() -> None:
    ours = summary(SETTING, turns(SECONDS))["ways"]["ours"]
    assert ours == {
        "ms_per_step": 100.0,  # 2 s for 20 steps
        "ms_per_step_range": [50.0, 200.0],
        "images_per_second": 495.0,  # 990 in 2 s: the images there are, not 20 batches of 50
        "peak_mib": 300,  # of the last turn, whole MiB
        "peak_device_mib": None,
        "steps": 20,
        "seconds": [1.0, 2.0, 4.0],
    }


def test_the_limit_has_only_full_batches() -> None:
    limit = summary(SETTING, turns(SECONDS))["ways"]["limit"]
    assert limit["images_per_second"] == 40 * 50 / 0.5
    assert limit["ms_per_step"] == 12.5
    assert limit["ms_per_step_range"] == [6.25, 25.0]


def test_ratios_are_of_neighbours_in_time() -> None:
    result = summary(SETTING, turns(SECONDS))
    assert result["setting"] is SETTING
    assert list(result["ways"]) == ["plain", "ours", "loop", "limit"]
    assert result["ratios"] == {
        "plain/ours": {"median": 4.0, "range": [2.0, 8.0]},
        "ours/loop": {"median": 4.0, "range": [2.0, 4.0]},
        # A step against a step: 50/6.25, 100/25, 200/12.5 ms.
        "ours/limit": {"median": 8.0, "range": [4.0, 16.0]},
    }


def test_a_machine_that_slows_down_leaves_the_ratios() -> None:
    even = summary(SETTING, turns({way: [those[0]] * 3 for way, those in SECONDS.items()}))
    slower = summary(SETTING, turns({way: [those[0] * f for f in (1, 2, 4)] for way, those in SECONDS.items()}))
    assert slower["ratios"] == even["ratios"]
    for way in SECONDS:
        assert slower["ways"][way]["ms_per_step"] == 2 * even["ways"][way]["ms_per_step"]
        assert slower["ways"][way]["images_per_second"] == even["ways"][way]["images_per_second"] / 2


def test_one_round_is_enough() -> None:
    result = summary(SETTING, turns({way: those[:1] for way, those in SECONDS.items()}))
    assert result["ways"]["ours"]["ms_per_step_range"] == [50.0, 50.0]
    assert result["ratios"]["plain/ours"] == {"median": 8.0, "range": [8.0, 8.0]}


def test_the_table_shows_the_figures() -> None:
    text = table(summary(SETTING, turns(SECONDS)))
    assert text.splitlines()[1] == (
        "CNN, batch 50, 20 steps an epoch, cpu (threads: 2), 32-true, synthetic, median and range of 3"
    )
    head, rule, *rows = map(cells, markdown(text))
    assert head == ["", "ms/step", "range", "images/s", "peak MiB", ""]
    assert [cell.endswith(":") for cell in rule] == [False, True, True, True, True, False]
    assert rows == [
        ["plain", "400.0", "200.0 - 800.0", "124", "300", MEANINGS["plain"]],
        ["ours", "100.0", "50.0 - 200.0", "495", "300", MEANINGS["ours"]],
        ["loop", "25.0", "25.0 - 50.0", "1,980", "300", MEANINGS["loop"]],
        ["limit", "12.5", "6.2 - 25.0", "4,000", "300", MEANINGS["limit"]],
        ["plain/ours", "4.00", "2.00 - 8.00", "", "", ""],
        ["ours/loop", "4.00", "2.00 - 4.00", "", "", ""],
        ["ours/limit", "8.00", "4.00 - 16.00", "", "", ""],
    ]


def test_figures_stand_to_the_right_and_words_to_the_left() -> None:
    head, _, *rows = markdown(table(summary(SETTING, turns(SECONDS))))
    for line in (head, *rows):
        first, *figures, last = line[2:-2].split(" | ")
        assert not first.startswith(" ") or not first.strip()
        assert not last.startswith(" ") or not last.strip()
        assert all(not cell.endswith(" ") or not cell.strip() for cell in figures)


@pytest.mark.parametrize(("device_bytes", "shown"), [(None, "300"), (2048 * MIB, "2,048")])
def test_memory_is_the_devices_where_it_has_some(device_bytes: int | None, shown: str) -> None:
    result = summary(SETTING, turns(SECONDS, device_bytes))
    assert result["ways"]["ours"]["peak_mib"] == 300
    _, _, *rows = map(cells, markdown(table(result)))
    assert [row[4] for row in rows] == [shown] * 4 + [""] * 3


def test_memory_that_no_system_tells_is_left_empty() -> None:
    unknown = {way: [turn._replace(peak_bytes=None) for turn in those] for way, those in turns(SECONDS).items()}
    result = summary(SETTING, unknown)
    assert result["ways"]["ours"]["peak_mib"] is None
    _, _, *rows = map(cells, markdown(table(result)))
    assert {row[4] for row in rows} == {""}


def test_the_table_of_starts() -> None:
    result = {
        "import lightning": {"median": 4.0, "seconds": [5.0, 3.0, 4.0]},
        "--help": {"median": 0.5, "seconds": [0.5, 0.25, 1.0]},
        "fit, first step done": {"median": 12.0, "seconds": [12.0, 12.0, 13.5]},
    }
    head, rule, *rows = map(cells, markdown(startup_table(result)))
    assert head == ["start-up", "s", "range", "of import lightning"]
    assert [cell.endswith(":") for cell in rule] == [False, True, True, True]
    assert rows == [
        ["import lightning", "4.00", "3.00 - 5.00", "1.00"],
        ["--help", "0.50", "0.25 - 1.00", "0.12"],
        ["fit, first step done", "12.00", "12.00 - 13.50", "3.00"],
    ]
