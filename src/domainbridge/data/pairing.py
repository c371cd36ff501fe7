"""Advice for folders in which images and labels cannot be told apart by their names."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path

from domainbridge.data.walk import LABEL_SUFFIXES, suffix_of

__all__ = ["MASK_ENDINGS", "ambiguous_names", "common_folder_advice", "mask_ending", "pattern_advice", "shared_ends"]

MASK_ENDINGS = (
    *("_labelTrainIds", "_labelIds", "_instanceIds", "_gtFine_color", "_segmentation", "_groundtruth", "_annotation"),
    *("_labels", "_label", "_masks", "_mask", "_manual1", "_1stHO", "_seg", "_gt", "_GT", "_lbl", "_anno", "_color"),
    *("-labels", "-label", "-mask", "-seg", "-gt", ".label", ".mask", "_L", "_M"),
)
"""Endings of label files' names in common data sets."""


def mask_ending(stem: str) -> str | None:
    """The ending that marks a name, without its suffix, as that of a label; None without one."""
    lower = stem.lower()
    return next(
        (stem[-len(end) :] for end in MASK_ENDINGS if lower.endswith(end.lower()) and len(stem) > len(end)), None
    )


def common_folder_advice(names: Sequence[str]) -> str:
    """What to write in a recipe whose images and labels are in one folder with these names."""
    bodies = {name.rpartition(".")[0]: suffix_of(name) for name in names if suffix_of(name) in LABEL_SUFFIXES}
    marked = Counter(
        (bodies[body.removesuffix(end)], end, suffix)
        for body, suffix in bodies.items()
        if (end := mask_ending(body)) is not None and body.removesuffix(end) in bodies
    )
    if marked:
        (image_suffix, end, suffix), _ = marked.most_common(1)[0]
        return f"set image_pattern: '{{stem}}{image_suffix}' and label_pattern: '{{stem}}{end}{suffix}'"
    suffixes = Counter(suffix_of(name) for name in names if suffix_of(name) in LABEL_SUFFIXES)
    if len(suffixes) > 1:
        photo = next((s for s in (".jpg", ".jpeg", ".tif", ".tiff", ".bmp") if s in suffixes), None)
        label_suffix = ".png" if ".png" in suffixes else next(s for s in suffixes if s != photo)
        image_suffix = photo or next(s for s in suffixes if s != label_suffix)
        return f"set image_pattern: '{{stem}}{image_suffix}' and label_pattern: '{{stem}}{label_suffix}'"
    return "set image_pattern and label_pattern, e.g. '{stem}.jpg' and '{stem}_mask.png', so that the names differ"


def pattern_advice(images: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """What to write where no label has the name of an image, beginning with ``;``, or "" if no pattern pairs most.

    Args:
        images: stem -> file name.
        labels: likewise.
    """
    if min(len(images), len(labels)) < 2:
        return ""
    for ends_only in (True, False):
        (image_start, image_end), (label_start, label_end) = (
            shared_ends(list(stems), ends_only=ends_only) for stems in (images, labels)
        )
        if (image_start, image_end) == (label_start, label_end):
            continue  # such names pair without patterns: the labels are those of other images
        cores = {stem[len(image_start) : len(stem) - len(image_end)] for stem in images}
        shared = cores & {stem[len(label_start) : len(stem) - len(label_end)] for stem in labels}
        if 2 * len(shared) > min(len(images), len(labels)):
            image_suffix, label_suffix = (suffix_of(next(iter(names.values()))) for names in (images, labels))
            return (
                f"; set image_pattern: '{image_start}{{stem}}{image_end}{image_suffix}' and label_pattern: "
                f"'{label_start}{{stem}}{label_end}{label_suffix}'"
            )
    return ""


def shared_ends(stems: Sequence[str], *, ends_only: bool = False) -> tuple[str, str]:
    """The beginning and the end that all stems share, up to a separator: ("img_", "_rgb"); no beginning in folders."""
    bases = [stem.rpartition("/")[2] for stem in stems]
    end = re.sub(r"^[^_\-. ]*", "", _common([base[::-1] for base in bases])[::-1])
    if ends_only or any("/" in stem for stem in stems):
        return "", end
    start = re.sub(r"[^_\-. ]*$", "", _common(bases))
    return start, "" if len(start) + len(end) >= min(len(base) for base in bases) else end


def _common(texts: Sequence[str]) -> str:
    return str(commonprefix(texts))  # noqa: RUF071 - character by character, as is meant here


def ambiguous_names(folder: Path, kind: str, pattern: str, twins: Mapping[str, Sequence[str]]) -> str:
    """A sentence about files with one stem, and the pattern that takes one of them."""
    names = next(iter(twins.values()))
    key = "image_pattern" if kind == "images" else "label_pattern"
    common = Counter(suffix_of(name) for group in twins.values() for name in group)
    pattern = pattern.removesuffix(suffix_of(pattern)) if suffix_of(pattern) in LABEL_SUFFIXES else pattern
    patterns = " or ".join(f"'{pattern}{suffix}'" for suffix, _ in common.most_common(3))
    return (
        f"{len(twins)} times two files have the same stem, e.g. {folder / names[0]} and {names[1]}; set {key}: "
        f"{patterns}, or move the other files away"
    )
