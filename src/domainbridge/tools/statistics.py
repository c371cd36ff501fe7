"""How much of each labeled domain every class covers, as numbers and as a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.statistics import counts_of_samples
from domainbridge.files import write_file

__all__ = ["DomainShares", "class_shares", "draw_shares"]


@dataclass(frozen=True)
class DomainShares:
    """Shares of one labeled domain.

    Attributes:
        name: of the domain.
        pixels: class -> share of the pixels that have a class, in [0, 1].
        images: class -> share of the images that show it, in [0, 1].
        ignored: share of all pixels that have no class.
    """

    name: str
    pixels: dict[str, float]
    images: dict[str, float]
    ignored: float


def class_shares(recipe: Recipe, data: DataSets) -> list[DomainShares]:
    """Of every source in the training space, and of every validation and test set in the scoring space.

    Raises:
        DataError: a file cannot be used.
    """
    trained, scored = training_space(recipe).classes, scoring_rule(recipe).space.classes
    domains = [(labeled, trained) for labeled in (*data.sources, *data.oracle.values())]
    domains += [(labeled, scored) for labeled in data.scored]
    return [_shares(samples, classes) for samples, classes in domains]


def _shares(samples: FileDataset, classes: tuple[str, ...]) -> DomainShares:
    counts = counts_of_samples(samples, len(classes))
    labeled = counts[:, :-1]
    pixels = labeled.sum(0) / max(int(labeled.sum()), 1)
    return DomainShares(
        samples.name,
        dict(zip(classes, pixels.tolist(), strict=True)),
        dict(zip(classes, (labeled > 0).mean(0).tolist(), strict=True)),
        float(counts[:, -1].sum() / max(int(counts.sum()), 1)),
    )


def draw_shares(shares: list[DomainShares], path: Path) -> None:
    """Bars per class, one color per domain, on a logarithmic axis, so that rare classes can be seen; a PNG."""
    from matplotlib.figure import Figure

    classes = list(dict.fromkeys(name for domain in shares for name in domain.pixels))
    figure = Figure(figsize=(8, 1 + 0.35 * len(classes)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(shares)
    for position, domain in enumerate(shares):
        places = np.arange(len(classes)) + position * height
        axes.barh(places, [100 * domain.pixels.get(name, 0) for name in classes], height, label=domain.name)
    axes.set_yticks(np.arange(len(classes)) + 0.4 - height / 2, classes)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("share of the labeled pixels, %")
    axes.legend()
    write_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
