"""From seconds to figures, and to a table of them."""

import statistics
from collections.abc import Sequence
from typing import Any

RATIOS = (("plain", "ours"), ("ours", "loop"), ("ours", "limit"))
MEANINGS = {
    "plain": "the loop people write",
    "ours": "fit, all included",
    "loop": "without the Trainer",
    "limit": "convolutions and matrix products alone",
}


def summary(setting: dict[str, Any], turns: dict[str, list[Any]]) -> dict[str, Any]:
    """Medians and ranges.

    Args:
        setting: What was compared: model, batch size and so on; `batch_size` and `train_images` are needed.
        turns: Each way's `Turn`s; those at the same place were taken one right after the other.

    Returns:
        `setting`; `ways`: for each, seconds a turn, milliseconds a step and images a second (median), the range of the
        former, and MiB at the peak; `ratios`: median and range over the rounds of one way's time over another's.
    """
    ms = {way: [1000 * turn.seconds / turn.steps for turn in those] for way, those in turns.items()}
    ways = {}
    for way, those in turns.items():
        images = those[0].steps * setting["batch_size"]
        if way != "limit":  # the last batch of an epoch may be smaller
            images = min(images, setting["train_images"])
        ways[way] = {
            "ms_per_step": statistics.median(ms[way]),
            "ms_per_step_range": [min(ms[way]), max(ms[way])],
            "images_per_second": statistics.median(images / turn.seconds for turn in those),
            "peak_mib": _mib(those[-1].peak_bytes),
            "peak_device_mib": _mib(those[-1].peak_device_bytes),
            "steps": those[0].steps,
            "seconds": [turn.seconds for turn in those],
        }
    ratios = {}
    for above, below in RATIOS:
        each = [a / b for a, b in zip(ms[above], ms[below], strict=True)]
        ratios[f"{above}/{below}"] = {"median": statistics.median(each), "range": [min(each), max(each)]}
    return {"setting": setting, "ways": ways, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    """What `summary` returns, as lines of Markdown that read well as they are."""
    setting, ways, ratios = result["setting"], result["ways"], result["ratios"]
    rounds = len(ways["ours"]["seconds"])
    head = (
        f"{setting['model']}, batch {setting['batch_size']}, {ways['ours']['steps']} steps an epoch, "
        f"{setting['device']} (threads: {setting['threads']}), {setting['precision']}, {setting['source']}, "
        f"median and range of {rounds}"
    )
    on_device = ways["ours"]["peak_device_mib"] is not None
    rows = [("", "ms/step", "range", "images/s", "peak GPU MiB" if on_device else "peak MiB", "")]
    for way, figures in ways.items():
        low, high = figures["ms_per_step_range"]
        memory = figures["peak_device_mib"] if on_device else figures["peak_mib"]
        rows.append(
            (
                way,
                f"{figures['ms_per_step']:.1f}",
                f"{low:.1f} - {high:.1f}",
                f"{figures['images_per_second']:,.0f}",
                f"{memory:,}" if memory else "",
                MEANINGS[way],
            )
        )
    for name, ratio in ratios.items():
        low, high = ratio["range"]
        rows.append((name, f"{ratio['median']:.2f}", f"{low:.2f} - {high:.2f}", "", "", ""))
    return f"\n{head}\n\n{_markdown(rows)}\n"


def startup_table(result: dict[str, Any]) -> str:
    """What `startup` returns, in the same form."""
    base = result["import lightning"]["median"]
    rows = [("start-up", "s", "range", "of import lightning")]
    for name, figures in result.items():
        low, high = min(figures["seconds"]), max(figures["seconds"])
        ratio = f"{figures['median'] / base:.2f}"
        rows.append((name, f"{figures['median']:.2f}", f"{low:.2f} - {high:.2f}", ratio))
    return f"{_markdown(rows)}\n"


def _markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned columns: words to the left, figures to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aligned = ["<", *">" * (len(widths) - 1)]
    if len(widths) > 4:
        aligned[-1] = "<"
    rule = tuple(
        "-" * width if side == "<" else "-" * (width - 1) + ":" for width, side in zip(widths, aligned, strict=True)
    )
    cells = [
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)]
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _mib(count: int | None) -> int | None:
    return None if count is None else count // 2**20
