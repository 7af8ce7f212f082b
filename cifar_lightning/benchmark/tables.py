"""From seconds to medians, ranges and a table of them."""

from collections.abc import Iterable
from statistics import median
from typing import Any

MEANINGS = {  # in the order in which they take turns
    "baseline": "the loop people write",
    "fit": "everything included",
    "bare loop": "without the Trainer",
    "limit": "convolutions and matrix products alone",
}
RATIOS = (("baseline", "fit"), ("fit", "bare loop"), ("fit", "limit"))
ROW = "| {:<13} | {:>8} | {:>17} | {:>8} | {:>12} | {:<38} |"
RULE = ROW.replace("{:>", "{:->").format(*["-" * 13, *[":"] * 4, "-" * 38])


def summarize(setting: dict[str, Any], epochs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return medians and ranges of what each variant sent, round by round (`timing.timed_epochs`)."""
    ms = {name: [1000 * epoch["seconds"] / epoch["steps"] for epoch in sent] for name, sent in epochs.items()}
    variants = {}
    for name, sent in epochs.items():
        images = sent[-1]["steps"] * setting["batch_size"]
        if name != "limit":  # the last batch of an epoch may be smaller
            images = min(images, setting["train_images"])
        variants[name] = {
            **sent[-1],  # with the peak of all rounds
            "seconds": [epoch["seconds"] for epoch in sent],
            "ms_per_step": _spread(ms[name]),
            "images_per_second": median(images / epoch["seconds"] for epoch in sent),
        }
    # By pair: both sides of a ratio met the same load of the machine.
    ratios = {f"{a}/{b}": _spread(x / y for x, y in zip(ms[a], ms[b], strict=True)) for a, b in RATIOS}
    return {"setting": setting, "variants": variants, "ratios": ratios}


def table(result: dict[str, Any]) -> str:
    """Return what `summarize` does as Markdown that reads well as it is."""
    fit = result["variants"]["fit"]
    title = (
        "{model}, batch {batch_size}, {steps} steps per epoch, {device} (threads: {threads}), {precision}, {source}, "
        "median and range of {rounds}"
    ).format(**result["setting"], steps=fit["steps"], rounds=len(fit["seconds"]))
    key, memory = ("peak_mib", "peak MiB") if fit["peak_device_mib"] is None else ("peak_device_mib", "peak GPU MiB")
    lines = [title, "", ROW.format("", "ms/step", "range", "images/s", memory, ""), RULE]
    for name, figures in result["variants"].items():
        images, peak = f"{figures['images_per_second']:,.0f}", "" if figures[key] is None else f"{figures[key]:,}"
        lines.append(ROW.format(name, *_columns(figures["ms_per_step"], ".1f"), images, peak, MEANINGS[name]))
    for name, ratio in result["ratios"].items():
        lines.append(ROW.format(name, *_columns(ratio, ".2f"), "", "", ""))
    return "\n".join(lines)


def _spread(values: Iterable[float]) -> dict[str, Any]:
    values = list(values)
    return {"median": median(values), "range": [min(values), max(values)]}


def _columns(spread: dict[str, Any], digits: str) -> list[str]:
    low, high = (format(value, digits) for value in spread["range"])
    return [format(spread["median"], digits), f"{low} - {high}"]
