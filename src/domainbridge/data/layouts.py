"""Data sets as they are downloaded and unpacked: where images and labels lie, and what the label values mean."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.id_tables import (
    CAMVID_COLORS,
    CITYSCAPES_IDS,
    IDD_NAMES,
    MAPILLARY_V12_NAMES,
    MAPILLARY_V20_NAMES,
    SYNTHIA_IDS,
    id_table,
)
from domainbridge.data.label_files import IdLabels, LabelDecoder, PolygonLabels, painted_labels
from domainbridge.data.spaces import BUILT_IN, LabelSpace, space_table
from domainbridge.errors import DataError
from domainbridge.types import IGNORE

__all__ = ["LAYOUTS", "Layout", "Place"]


@dataclass(frozen=True)
class Place:
    """One way in which a data set lies on disk.

    Attributes:
        images: folder below the root; ``{split}`` is filled in.
        labels: likewise.
        image_ending: end of an image's stem ...
        label_ending: ... that its label has in its place, with the suffix.
    """

    images: str
    labels: str
    image_ending: str = ""
    label_ending: str = ".png"


@dataclass(frozen=True)
class Layout:
    """One data set.

    Attributes:
        title: its name in words.
        places: how it may lie on disk; the first whose images are there counts.
        decoder: from the root to how labels are read.
        label_space: of the ids that the decoder gives.
        unpack: what to do when the folders are not there.
        splits: name -> what ``{split}`` becomes, one or several folders; empty when the set has no splits.
        counts: name of a split ("" for the whole set) -> images of the complete set.
    """

    title: str
    places: tuple[Place, ...]
    decoder: Callable[[Path], LabelDecoder]
    label_space: str
    unpack: str
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


_CITYSCAPES19 = BUILT_IN["cityscapes19"]


def _ids(ids: Mapping[int, int], name: str, *, first_channel: bool = False) -> Callable[[Path], LabelDecoder]:
    decoder = IdLabels.own_ids(id_table(ids), name, first_channel=first_channel)
    return lambda root: decoder


def _train_ids(space: LabelSpace) -> Callable[[Path], LabelDecoder]:
    decoder = IdLabels.in_space(space_table(space, space), space)
    return lambda root: decoder


def _by_config(
    files: tuple[str, ...], train_ids: Mapping[str, int], known_order: NDArray[np.uint8] | None
) -> Callable[[Path], LabelDecoder]:
    """Mapillary: label values are positions in the class list of the set's own JSON file, the first that is there."""

    def decoder(root: Path) -> LabelDecoder:
        found = [root / file for file in files if (root / file).is_file()]
        if not found and known_order is not None:
            return IdLabels.own_ids(known_order, "mapillary")
        if not found:
            raise DataError(f"{root / files[0]}: no such file; it comes with the archive and says what labels mean")
        try:
            names = [str(entry["readable"]) for entry in json.loads(found[0].read_text(encoding="utf-8"))["labels"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{found[0]}: expected JSON with a list 'labels' of classes: {error}") from error
        if not set(names) & set(train_ids):
            raise DataError(f"{found[0]}: none of its {len(names)} classes is known, e.g. {', '.join(names[:3])}")
        return IdLabels.own_ids(_table(names, train_ids), "mapillary")

    return decoder


def _table(names: list[str], train_ids: Mapping[str, int]) -> NDArray[np.uint8]:
    return id_table({value: train_ids.get(name, IGNORE) for value, name in enumerate(names)})


def _camvid_painted(root: Path) -> LabelDecoder:
    classes = BUILT_IN["camvid11"].classes
    return painted_labels({int(color[1:], 16): classes.index(name) for color, name in CAMVID_COLORS.items()})


def _camvid_indexed(root: Path) -> LabelDecoder:
    # 0 .. 10 are camvid11's classes in order, 11 is void.
    return IdLabels.own_ids(id_table({value: value for value in range(11)}), "camvid")


def _each(split: str, *folders: str) -> dict[str, tuple[str, ...]]:
    """All folders under the split's name, and each alone under 'folder/split'."""
    one_by_one = {f"{folder}/{split}": (f"{folder}/{split}",) for folder in folders}
    return {split: tuple(f"{folder}/{split}" for folder in folders), **one_by_one}


_ACDC_CONDITIONS = ("fog", "night", "rain", "snow")
_PLAIN_SPLITS = {"train": ("train",), "val": ("val",)}
_MAPILLARY_SPLITS = {"train": ("training",), "val": ("validation",)}
_MAPILLARY_COUNTS = {"train": 18000, "val": 2000}

LAYOUTS: Mapping[str, Layout] = {
    "gta5": Layout(
        "GTA5",
        (Place("images", "labels"),),
        _ids(CITYSCAPES_IDS, "gta5"),
        "cityscapes19",
        "unpack 01_images.zip ... 10_images.zip and 01_labels.zip ... 10_labels.zip there",
        counts={"": 24966},
    ),
    "synscapes": Layout(
        "Synscapes",
        (Place("img/rgb", "img/class"),),
        _ids(CITYSCAPES_IDS, "synscapes"),
        "cityscapes19",
        "unpack the Synscapes archive there, so that img/rgb and img/class lie in it",
        counts={"": 25000},
    ),
    "synthia": Layout(
        "SYNTHIA-RAND-CITYSCAPES",
        (Place("RGB", "GT/LABELS"),),
        _ids(SYNTHIA_IDS, "synthia", first_channel=True),
        "cityscapes19",
        "unpack SYNTHIA_RAND_CITYSCAPES.rar there, so that RGB and GT/LABELS lie in it",
        counts={"": 9400},
    ),
    "cityscapes": Layout(
        "Cityscapes",
        (Place("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit", "_gtFine_labelIds.png"),),
        _ids(CITYSCAPES_IDS, "cityscapes"),
        "cityscapes19",
        "unpack leftImg8bit_trainvaltest.zip and (for validation) gtFine_trainvaltest.zip there",
        _PLAIN_SPLITS,
        {"train": 2975, "val": 500},
    ),
    "mapillary": Layout(
        "Mapillary Vistas, labels v1.2",
        (
            Place("{split}/images", "{split}/v1.2/labels"),
            Place("{split}/images", "{split}/labels"),
        ),
        _by_config(
            ("config_v1.2.json", "config.json"),
            MAPILLARY_V12_NAMES,
            _table([*MAPILLARY_V12_NAMES], MAPILLARY_V12_NAMES),
        ),
        "cityscapes19",
        "unpack the Mapillary Vistas v1.2 or v2.0 archive there, so that training and validation lie in it",
        _MAPILLARY_SPLITS,
        _MAPILLARY_COUNTS,
    ),
    "mapillary-v2": Layout(
        "Mapillary Vistas, labels v2.0",
        (Place("{split}/images", "{split}/v2.0/labels"),),
        _by_config(("config_v2.0.json",), MAPILLARY_V20_NAMES, None),
        "cityscapes19",
        "unpack the Mapillary Vistas v2.0 archive there, so that training, validation and config_v2.0.json lie in it",
        _MAPILLARY_SPLITS,
        _MAPILLARY_COUNTS,
    ),
    "acdc": Layout(
        "ACDC, one condition (fog/train) or all four (train)",
        (Place("rgb_anon/{split}", "gt/{split}", "_rgb_anon", "_gt_labelTrainIds.png"),),
        _train_ids(_CITYSCAPES19),
        "cityscapes19",
        "unpack rgb_anon_trainvaltest.zip and (for validation) gt_trainval.zip there",
        {**_each("train", *_ACDC_CONDITIONS), **_each("val", *_ACDC_CONDITIONS)},
        {"train": 1600, "val": 406},
    ),
    "dark-zurich": Layout(
        "Dark Zurich",
        (Place("rgb_anon/{split}", "gt/{split}", "_rgb_anon", "_gt_labelTrainIds.png"),),
        _train_ids(_CITYSCAPES19),
        "cityscapes19",
        "unpack Dark_Zurich_train_anon.zip and (for validation) Dark_Zurich_val_anon.zip there",
        {
            "train": ("train/night",),
            "train/twilight": ("train/twilight",),
            "train/day": ("train/day",),
            "val": ("val/night",),
        },
        {"train": 2416, "train/twilight": 2920, "train/day": 3041, "val": 50},
    ),
    "bdd100k": Layout(
        "BDD100K, the 10k images of the segmentation task",
        (
            Place("images/10k/{split}", "labels/sem_seg/masks/{split}"),
            Place("seg/images/{split}", "seg/labels/{split}", label_ending="_train_id.png"),
        ),
        _train_ids(_CITYSCAPES19),
        "cityscapes19",
        "unpack bdd100k_images_10k.zip and (for validation) bdd100k_sem_seg_labels_trainval.zip one folder above",
        _PLAIN_SPLITS,
        {"train": 7000, "val": 1000},
    ),
    "idd": Layout(
        "India Driving Dataset",
        (Place("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit", "_gtFine_polygons.json"),),
        lambda root: PolygonLabels(IDD_NAMES),
        "cityscapes19",
        "unpack idd-segmentation.tar.gz (and idd-20k-II.tar.gz over it) there",
        _PLAIN_SPLITS,
        {"train": 6993, "val": 981},
    ),
    "camvid": Layout(
        "CamVid, the original 701 images in 32 colours",
        (Place("701_StillsRaw_full", "LabeledApproved_full", label_ending="_L.png"),),
        _camvid_painted,
        "camvid11",
        "unpack 701_StillsRaw_full.zip there, and LabeledApproved_full.zip into a folder LabeledApproved_full in it",
        counts={"": 701},
    ),
    "camvid-segnet": Layout(
        "CamVid as SegNet's tutorial has it, 367/101/233 images",
        (Place("{split}", "{split}annot"),),
        _camvid_indexed,
        "camvid11",
        "put the CamVid folder of SegNet's tutorial there, so that train, trainannot, val, valannot ... lie in it",
        {"train": ("train",), "val": ("val",), "test": ("test",)},
        {"train": 367, "val": 101, "test": 233},
    ),
}
