"""Layouts: the form in which data sets are downloaded and unpacked, one module per family of data sets.

A module registers each of its layouts by name, so that a recipe's key ``dataset`` selects the layout. Another
distribution adds layouts as entry points of the group ``domainbridge.layouts``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from domainbridge.data.label_ids import id_table
from domainbridge.data.label_spaces import LabelSpace, space_table
from domainbridge.data.labels import IdLabels, LabelDecoder
from domainbridge.registry import Registry

__all__ = [
    "LAYOUTS",
    "TRAIN_AND_VAL",
    "DirectoryScheme",
    "Layout",
    "native_id_decoder",
    "register_layout",
    "train_id_decoder",
]


@dataclass(frozen=True)
class DirectoryScheme:
    """Folders and file names of a data set on disk.

    Attributes:
        images: folder of images below the root; ``{split}`` stands for the folder of the split.
        labels: folder of labels, likewise.
        image_ending: end of every image's stem.
        label_ending: end of a label's name, with the suffix, in place of ``image_ending``.
        image_start: beginning of every image's name.
        label_start: beginning of a label's name, in place of ``image_start``.
    """

    images: str
    labels: str
    image_ending: str = ""
    label_ending: str = ".png"
    image_start: str = ""
    label_start: str = ""

    def label_name(self, image: str) -> str | None:
        """Name of an image's label below ``labels``; None for a name that no image of this scheme has.

        Args:
            image: path below ``images``, without the suffix.
        """
        folder, slash, stem = image.rpartition("/")
        if not (stem.startswith(self.image_start) and stem.endswith(self.image_ending)):
            return None
        body = stem.removeprefix(self.image_start).removesuffix(self.image_ending)
        return f"{folder}{slash}{self.label_start}{body}{self.label_ending}"


@dataclass(frozen=True)
class Layout:
    """One data set.

    Attributes:
        title: name of the data set in words.
        schemes: possible directory schemes; the first scheme with existing image folders counts.
        decoder: from the root of the data set to the decoder of its labels.
        label_space: label space of the decoder's train ids.
        unpack: instructions for the case that the folders are missing.
        splits: name of a split -> values of ``{split}``, one or several folders; empty for a data set without splits.
        counts: name of a split ("" for the whole data set) -> images of the complete data set.
    """

    title: str
    schemes: tuple[DirectoryScheme, ...]
    decoder: Callable[[Path], LabelDecoder]
    label_space: str
    unpack: str
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


LAYOUTS: Registry[Layout] = Registry("dataset", "domainbridge.data.layouts", "domainbridge.layouts")
register_layout = LAYOUTS.register
"""Register a layout under the name in recipes: ``register_layout("gta5")(Layout(...))``."""

TRAIN_AND_VAL: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("val",)}
"""Splits with folders of the same names."""


def native_id_decoder(
    ids: Mapping[int, int], name: str, *, first_channel: bool = False
) -> Callable[[Path], LabelDecoder]:
    """``Layout.decoder`` of labels with the data set's ids: id -> train id; unlisted ids are ignored."""
    decoder = IdLabels.native_ids(id_table(ids), name, first_channel=first_channel)
    return lambda root: decoder


def train_id_decoder(space: LabelSpace) -> Callable[[Path], LabelDecoder]:
    """``Layout.decoder`` of labels with train ids of ``space``."""
    decoder = IdLabels.in_space(space_table(space, space), space)
    return lambda root: decoder
