"""The image files below a folder in groups of one kind: photographs or masks, by content and by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from domainbridge.data.bands import ImageRule
from domainbridge.data.dataset import evenly_spread
from domainbridge.data.decode import count_colors, read_image
from domainbridge.data.headers import read_header
from domainbridge.data.pairing import mask_ending
from domainbridge.data.walk import LABEL_SUFFIXES, suffix_of
from domainbridge.errors import DataError

__all__ = ["Cluster", "clusters_of", "evenly", "is_other"]

Item = TypeVar("Item")

_SAMPLES = 4
_MASK_COLORS = 64
"""Masks have fewer colors in a sample of pixels; photographs have hundreds."""
_SAMPLED_PIXELS = 20_000
_IMAGE_WORDS = frozenset(
    ("image", "images", "img", "imgs", "photo", "photos", "rgb", "jpegimages", "leftimg8bit", "input", "inputs")
)
_MASK_WORDS = frozenset(
    (
        *("label", "labels", "mask", "masks", "gt", "gtfine", "annotation", "annotations", "annot", "ann", "seg"),
        *("segmentation", "segmentationclass", "segmentationclassraw", "segmentationclasspng", "groundtruth"),
        *("ground", "manual", "semantic", "labelids", "labeltrainids", "classes"),
    )
)
_OTHER_WORDS = frozenset({"instance", "instances", "object", "segmentationobject", "instanceids", "depth", "disparity"})
_ANY = ImageRule(percentiles=(0, 100))


@dataclass(frozen=True)
class Cluster:
    """Files of one folder, one suffix and one ending.

    Attributes:
        folder: relative to the root; "" is the root.
        suffix: with its dot, as spelled in the first name.
        ending: of the names, e.g. "_mask"; "" without one.
        names: relative to the root.
        is_mask: masks rather than photographs.
        evidence: why.
    """

    folder: str
    suffix: str
    ending: str
    names: tuple[str, ...]
    is_mask: bool
    evidence: str


def clusters_of(root: Path, names: Sequence[str]) -> list[Cluster]:
    """The image files among ``names``, which are relative to ``root``, in groups."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        if suffix_of(name) in LABEL_SUFFIXES:
            folder, _, base = name.rpartition("/")
            ending = mask_ending(base.rpartition(".")[0]) or ""
            groups.setdefault((folder, suffix_of(name), ending), []).append(name)
    clusters = []
    for (folder, suffix, ending), members in groups.items():
        is_mask, evidence = _is_mask(root, folder, ending, suffix, members)
        clusters.append(Cluster(folder, suffix, ending, tuple(members), is_mask, evidence))
    return clusters


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` items, evenly spread."""
    return [items[index] for index in evenly_spread(len(items), count)]


def _is_mask(root: Path, folder: str, ending: str, suffix: str, names: Sequence[str]) -> tuple[bool, str]:
    """Whether the files are masks, and why: an ending or a folder's name decides, else the number of colors."""
    parts = [word for part in folder.lower().split("/") for word in (part, *re.split(r"[^a-z]+", part)) if word]
    known = [word for word in parts if word in _MASK_WORDS | _IMAGE_WORDS | _OTHER_WORDS]
    hints = [word not in _IMAGE_WORDS for word in known]
    if suffix in (".gif", ".npy"):
        return True, f"{suffix} files"
    if ending:
        return True, f"names end in {ending}"
    if hints:
        return hints[-1], f"the folder's name {folder}"
    few = [_few_colors(root / name) for name in evenly(names, _SAMPLES)]
    share = sum(few) / len(few)
    return share > 0.5, "few colors" if share > 0.5 else "many colors"


def _few_colors(path: Path) -> bool:
    """Whether a file has the number of colors of a mask."""
    try:
        header = read_header(path)
        if header.mode in ("P", "1"):
            return True
        image = read_image(path, ImageRule() if header.plain else _ANY)
    except DataError:
        return False
    return count_colors(image, _SAMPLED_PIXELS) <= _MASK_COLORS


def is_other(cluster: Cluster) -> bool:
    """Whether the names say that the masks are instances or depth rather than classes."""
    text = f"{cluster.folder}/{cluster.ending}".lower()
    return any(word in text for word in _OTHER_WORDS)
