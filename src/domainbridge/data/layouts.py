"""Data sets as they are downloaded and unpacked: where images and labels lie, and what the label values mean."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domainbridge.data.decode import IdLabels
from domainbridge.data.id_tables import CITYSCAPES_IDS, id_table
from domainbridge.data.samples import index_images
from domainbridge.errors import DataError, RecipeError

__all__ = ["LAYOUTS", "Layout", "layout_files"]


@dataclass(frozen=True)
class Layout:
    """One data set's folders.

    Attributes:
        images: folder below the root; ``{split}`` is filled in.
        labels: likewise.
        splits: names that ``split`` may have; empty when the set has none.
        image_ending: end of an image's stem ...
        label_ending: ... that its label's stem has in its place.
        ids: stored label value -> train id; others are ignored.
        label_space: of those train ids.
        unpack: what to do when the folders are not there.
    """

    images: str
    labels: str
    splits: tuple[str, ...]
    image_ending: str
    label_ending: str
    ids: dict[int, int]
    label_space: str
    unpack: str

    def decoder(self) -> IdLabels:
        """Stored ids to train ids; ids without a train id are ignored."""
        return IdLabels(id_table(self.ids), np.ones(256, bool), self.label_space)


LAYOUTS = {
    "gta5": Layout(
        images="images",
        labels="labels",
        splits=(),
        image_ending="",
        label_ending="",
        ids=CITYSCAPES_IDS,
        label_space="cityscapes19",
        unpack="unpack 01_images.zip ... 10_images.zip and 01_labels.zip ... 10_labels.zip of GTA5 there",
    ),
    "cityscapes": Layout(
        images="leftImg8bit/{split}",
        labels="gtFine/{split}",
        splits=("train", "val"),
        image_ending="_leftImg8bit",
        label_ending="_gtFine_labelIds",
        ids=CITYSCAPES_IDS,
        label_space="cityscapes19",
        unpack="unpack leftImg8bit_trainvaltest.zip and (for validation) gtFine_trainvaltest.zip there",
    ),
}


def layout_files(
    name: str, root: Path, split: str | None, validation: bool, labelled: bool, where: str
) -> tuple[tuple[Path, ...], tuple[Path, ...] | None]:
    """Images and, if wanted, labels of a known layout, in the order of their names; ``split`` None is train or val.

    Raises:
        RecipeError: the layout or the split is unknown.
        DataError: folders or labels are missing; the message says what to unpack where.
    """
    layout = known_layout(name, where)
    if split is not None and split not in layout.splits:
        known = ", ".join(layout.splits) or "no splits: leave the key out"
        raise RecipeError(f"{where}.split: {name} has {known}, found {split!r}")
    split = split or ("val" if validation else "train")
    image_folder = root / layout.images.format(split=split)
    if not image_folder.is_dir():
        raise DataError(f"{where}: {name} expects its images at {image_folder}; for root {root}: {layout.unpack}")
    images = tuple(
        path for stem, path in index_images(image_folder, where).items() if stem.endswith(layout.image_ending)
    )
    if not images:
        raise DataError(f"{where}: no image below {image_folder} has a name ending in {layout.image_ending}")
    if not labelled:
        return images, None
    label_folder = root / layout.labels.format(split=split)
    if not label_folder.is_dir():
        raise DataError(f"{where}: {name} expects its labels at {label_folder}; for root {root}: {layout.unpack}")
    labels = tuple(_label_of(path, image_folder, label_folder, layout) for path in images)
    missing = [path for path in labels if not path.is_file()]
    if missing:
        raise DataError(f"{where}: {len(missing)} of {len(labels)} label files are missing, e.g. {missing[0]}")
    return images, labels


def known_layout(name: str, where: str) -> Layout:
    """The layout of that name.

    Raises:
        RecipeError: unknown.
    """
    if name not in LAYOUTS:
        raise RecipeError(f"{where}.dataset: {name!r} is unknown; known are folder, {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _label_of(image: Path, image_folder: Path, label_folder: Path, layout: Layout) -> Path:
    relative = image.relative_to(image_folder).with_suffix("").as_posix()
    return label_folder / f"{relative.removesuffix(layout.image_ending)}{layout.label_ending}.png"
