"""One picture of a recipe's data: images with their labels drawn on, values and classes, and training crops."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.build.batches import paired_crops, training_data
from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.build.recipe import stages_of
from domainbridge.config.schema import Recipe
from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.dataset import FileDataset, evenly_spread
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.labels import IdLabels
from domainbridge.data.transforms import resize_image, resize_label
from domainbridge.errors import DataError
from domainbridge.files import write_file
from domainbridge.methods.base import TrainingStage
from domainbridge.printable import printable
from domainbridge.types import IGNORE, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_preview"]

_COLUMNS = 4
_SIDE = 360
"""Pixels of the longer side of a drawn image."""
_VALUES = 14
_OPACITY = 0.55

Image = NDArray[np.uint8]


def draw_preview(recipe: Recipe, data: DataSets, path: Path) -> list[str]:
    """Write a PNG: a row per domain with evenly spread images, the values of their labels, then training crops.

    Args:
        recipe: complete.
        data: its files.
        path: of the PNG.

    Returns:
        A sentence per file that cannot be drawn.

    Raises:
        StorageError: the picture cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [domain for domain in data.domains if len(domain)]
    problems: list[str] = []
    figure = Figure(figsize=(3.1 * (_COLUMNS + 1), 2.6 * (len(rows) + 1) + 0.6), layout="constrained", dpi=90)
    grid: Any = figure.subplots(len(rows) + 1, _COLUMNS + 1, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    trained, scored = training_space(recipe), scoring_rule(recipe).space
    for domain, line in zip(rows, grid, strict=False):
        space = scored if domain in data.scored else trained
        _draw_domain(line, domain, space, problems)
    _draw_crops(grid[-1], recipe, data, trained, problems)
    figure.legend(
        handles=_legend(trained), loc="outside lower center", ncols=min(len(trained) + 1, 8), fontsize="small"
    )
    write_file(path, lambda temporary: figure.savefig(temporary, format="png"))
    return problems


def _draw_domain(line: Sequence["Axes"], domain: FileDataset, space: LabelSpace, problems: list[str]) -> None:
    """Evenly spread images of a domain with their labels, and the values of these labels."""
    counts: dict[str, int] = {}
    for axes, index in zip(line, evenly_spread(len(domain), _COLUMNS), strict=False):
        try:
            image = domain.read_image(index)
            label = None
            if domain.labels is not None:
                label = _label_of(domain, index, counts, space)
        except DataError as error:
            problems.append(str(error))
            continue
        axes.imshow(_painted(image, label, space))
        title = f"{domain.name}: {len(domain)} images\n" if index == 0 else ""
        text = printable(f"{title}{domain.images[index].name[-34:]}")
        axes.set_title(text, fontsize="x-small", loc="left", parse_math=False)
    if counts:
        _draw_values(line[-1], counts)


def _label_of(domain: FileDataset, index: int, counts: dict[str, int], space: LabelSpace) -> Image:
    """The train ids of a sample; adds its values to ``counts``, each with the class that it becomes."""
    assert domain.labels is not None
    assert domain.decoder is not None
    path, decoder = domain.labels[index], domain.decoder
    if isinstance(decoder, IdLabels | ColorLabels):
        values = decoder.values(path)
        label = decoder.train_ids(path, values)
        flat, first = np.unique(values, return_index=True)
        value_counts = decoder.value_counts(values)
        for value, position in zip(flat.tolist(), first.tolist(), strict=True):
            name = f"{decoder.describe(value).strip(chr(39))} = {_class_name(int(label.flat[position]), space)}"
            counts[name] = counts.get(name, 0) + value_counts[value]
        return label
    label = decoder.read(path)
    for train_id, pixels in zip(*(part.tolist() for part in np.unique(label, return_counts=True)), strict=True):
        counts[_class_name(train_id, space)] = counts.get(_class_name(train_id, space), 0) + pixels
    return label


def _class_name(train_id: int, space: LabelSpace) -> str:
    return space.classes[train_id] if train_id < len(space) else "ignored"


def _draw_values(axes: "Axes", counts: dict[str, int]) -> None:
    """Bars of the commonest values."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])[:_VALUES]
    pixels = sum(counts.values())
    axes.axis("on")
    axes.barh(range(len(ordered)), [100 * count / pixels for _, count in ordered], color="0.5")
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize="xx-small")
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize="xx-small")
    axes.set_title("values = classes, % of the pixels", fontsize="x-small")


def _draw_crops(line: Sequence["Axes"], recipe: Recipe, data: DataSets, space: LabelSpace, problems: list[str]) -> None:
    """Two source crops with labels and two target crops, as the first training stage gets them."""
    stage = next((stage for stage in stages_of(recipe) if isinstance(stage, TrainingStage)), None)
    if stage is None or not all(len(domain) for domain in (*data.sources, *data.targets)):
        return
    read = training_data(recipe, data, data.source, data.target)
    try:
        batch = paired_crops(recipe, stage, 2, read, Rows.whole(2))[0]
    except DataError as error:
        problems.append(str(error))
        return
    pictures = [
        ("source crop", batch.source_image[0], batch.source_label[0]),
        ("source crop", batch.source_image[1], batch.source_label[1]),
        ("target crop", batch.target_image[0], None),
        ("target crop", batch.target_image[1], None),
    ]
    for axes, (name, image, label) in zip(line, pictures if data.sources else pictures[2:], strict=False):
        painted = _painted(image.permute(1, 2, 0).numpy(), None if label is None else label.numpy(), space)
        axes.imshow(painted)
        axes.set_title(f"{name} of {stage.name}, {image.shape[2]}x{image.shape[1]}", fontsize="x-small", loc="left")


def _painted(image: Image, label: Image | None, space: LabelSpace) -> Image:
    """The image, reduced, with the colors of the classes over it; ignored pixels stay as they are."""
    height, width = image.shape[:2]
    factor = min(_SIDE / max(height, width), 1)
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    small = resize_image(np.ascontiguousarray(image), size)
    if label is None:
        return small
    ids = resize_label(np.ascontiguousarray(label), size)
    mixed = (1 - _OPACITY) * small + _OPACITY * space.palette[ids]
    return np.where((ids == IGNORE)[..., None], small, mixed.astype(np.uint8))


def _legend(space: LabelSpace) -> list[Any]:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=f"#{red:02x}{green:02x}{blue:02x}", edgecolor="0.4", label=name)
        for name, (red, green, blue) in zip(space.classes, space.colors, strict=True)
    ]
    return [*patches, Patch(facecolor="white", edgecolor="0.4", label="ignored: not painted")]
