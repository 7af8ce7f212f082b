"""What is recognised, class by class, and what is taken for what."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING

from cifar_lightning.report.figures.axes import CHANCE
from cifar_lightning.report.style import BLUE, GREY, VERMILLION, Drawing, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_HEIGHT, MATRIX_HEIGHT = 330, 372
STYLES = (("o", BLUE), ("s", VERMILLION))
FULL_ERROR = 30  # percent of a class, from which on the shade of a mistake no longer deepens
FULL = 0.6  # opacity of the strongest shade: text stays legible on it, dark on light and light on dark


def per_class(name: str, models: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Test accuracy of each class, a marker a model.

    Args:
        name: Of the drawing.
        models: For one or two, by name: accuracy by class. The first one's give the order.
    """
    classes = sorted(next(iter(models.values())).items(), key=lambda item: item[1])
    names = [each for each, _ in classes]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        for y, each in enumerate(names):
            values = [accuracy[each] for accuracy in models.values() if each in accuracy]
            axes.plot([min(values), max(values)], [y, y], color=GREY, linewidth=1, alpha=0.6)
        for (model, accuracy), (marker, colour) in zip(models.items(), STYLES, strict=False):
            axes.plot(
                [accuracy.get(each, nan) for each in names],
                range(len(names)),
                marker,
                color=colour,
                label=model,
                markersize=7,
            )
        axes.axvline(CHANCE, color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="chance")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1)
        axes.set_xlabel("test accuracy")
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)

    parts = [
        f"{model}: {', '.join(f'{each} {accuracy[each]:.3f}' for each in reversed(names) if each in accuracy)}"
        for model, accuracy in models.items()
    ]
    return draw(name, f"Test accuracy by class. {'; '.join(parts)}.", DOTS_HEIGHT, paint)


def confusion(name: str, title: str, classes: Sequence[str], counts: Sequence[Sequence[float]]) -> Drawing:
    """A confusion matrix in percent of each true class: hits blue, errors orange.

    Args:
        name: Of the drawing.
        title: Of the panel.
        classes: In the order of the labels.
        counts: Row = true class, column = predicted class.
    """
    shares = [[100 * count / (sum(row) or 1) for count in row] for row in counts]
    worst = max(
        ((share, i, j) for i, row in enumerate(shares) for j, share in enumerate(row) if i != j), default=(0, 0, 0)
    )

    def paint(figure: "Figure") -> None:
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        axes.grid(visible=False)
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                # By the root, or what is rare would be invisible.
                strength = min(1, share / (100 if i == j else FULL_ERROR)) ** 0.5
                shade = {"facecolor": BLUE if i == j else VERMILLION, "alpha": FULL * strength, "linewidth": 0}
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **shade))
                if round(share):
                    axes.text(j, i, f"{share:.0f}", ha="center", va="center_baseline", fontsize=8.5)
        axes.set_xlim(-0.5, len(classes) - 0.5)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xticks(range(len(classes)), classes, rotation=55, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title)

    share, i, j = worst
    most = f"most often {classes[i]} is taken for {classes[j]} ({share:.1f} %)"
    alt = f"Confusion matrix, {title}: {_hits(counts):.1f} % are recognised; {most}."
    return draw(name, alt, MATRIX_HEIGHT, paint)


def _hits(counts: Sequence[Sequence[float]]) -> float:
    """Percentage that lies on the diagonal."""
    return 100 * sum(row[i] for i, row in enumerate(counts)) / (sum(map(sum, counts)) or 1)
