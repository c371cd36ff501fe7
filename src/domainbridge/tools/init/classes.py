"""Values or colors of label files, and the classes that they become."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.color_labels import ColorLabels, color_labels
from domainbridge.data.index_image import read_index_image
from domainbridge.data.labels import IdLabels
from domainbridge.errors import DataError, FileError
from domainbridge.tools.init.class_lists import find_class_list
from domainbridge.tools.init.clusters import evenly
from domainbridge.types import IGNORE

__all__ = ["Ask", "FoundClasses", "find_classes", "name_classes"]

_LOOKED_AT = 200
_MANY = 64
"""From this number of values on, most are left by a lossy format or by smoothed edges."""
_FLAT = 0.2
"""Share of a class's pixels that equal their neighbors, at least: blends at edges have few."""
_BLENDED = 8
"""From this number of values at edges on, they are blends and no thin classes."""
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
_MIN_SHARE = 0.005
"""Of the pixels: among very many values, rarer ones are no classes."""
_NEAR = 24
"""Distance of two values, or colors, that are one class."""

Ask = Callable[[str, str], str]
"""A question and its default answer -> the answer."""


@dataclass(frozen=True)
class FoundClasses:
    """The classes of label files.

    Attributes:
        names: value or color of the files -> name of the class; values that mean "no class" are left out.
        colors: whether the keys are colors (24-bit RGB) rather than values.
        shares: of the pixels, by value.
        nearest: whether values between those of two classes occur.
        ignore: whether 255 occurs beside other values, as "no class".
        evidence: what was seen, in words.
        named: whether the names come from the data set or the user.
    """

    names: dict[int, str]
    colors: bool
    shares: dict[int, float]
    nearest: bool
    ignore: bool
    evidence: str
    named: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names without repetition: values with one name are one class."""
        return tuple(dict.fromkeys(self.names.values()))

    def key(self, value: int) -> str:
        """A value or color as recipes write it."""
        return f"'#{value:06x}'" if self.colors else str(value)


def find_classes(root: Path, files: Sequence[str], labels: Sequence[Path]) -> FoundClasses:
    """Values, or colors, of evenly spread label files, named by a class list below the root where one is found.

    Raises:
        DataError: no label can be read.
    """
    looked = evenly(labels, _LOOKED_AT)
    value_counts, flat, colors = _found_values(looked)
    pixels = value_counts.total()
    lossy = any(path.suffix.lower() in _LOSSY for path in looked)
    edges = {value for value in value_counts if flat[value] < _FLAT * value_counts[value]}
    nearest = lossy or len(edges) >= _BLENDED or len(value_counts) > _MANY
    common = {value: number for value, number in value_counts.items() if not nearest or value not in edges}
    if lossy or len(common) > _MANY:
        common = _pure(value_counts, colors=colors)
    ignore = not colors and len(common) > 2 and common.pop(IGNORE, None) is not None
    if len(common) < 2:
        raise DataError(
            f"labels: only one value in {len(looked)} labels, e.g. {looked[0]}; a source needs labels of two classes"
        )
    shares = {value: number / pixels for value, number in sorted(common.items())}
    names = {value: f"class_{position}" for position, value in enumerate(shares)}
    if len(shares) == 2 and not colors:
        names = dict(zip(shares, ("background", "object"), strict=True))
    listed = ", ".join(f"#{value:06x}" if colors else str(value) for value in list(shares)[:12])
    evidence = (
        f"{len(shares)} {'colors' if colors else 'values'} in {len(looked)} labels: {listed}"
        f"{' ...' if len(shares) > 12 else ''}"
    )
    classes = FoundClasses(names, colors, shares, nearest, ignore, evidence)
    class_list = find_class_list(root, files, list(shares), colors=colors)
    if class_list is None:
        return classes
    table = class_list.by_color if colors else class_list.by_value
    known = {value: table.get(value, name) for value, name in names.items()}
    return replace(classes, names=known, named=True, evidence=f"{evidence}; names: {class_list.path}")


def _pure(value_counts: Counter[int], *, colors: bool) -> dict[int, int]:
    """The values of classes among those that a lossy format or smoothing left: common, and no blend of two others."""
    pixels = value_counts.total()
    accepted: list[int] = []
    for value, number in value_counts.most_common(IGNORE):
        if number < _MIN_SHARE * pixels:
            break
        point = _point(value) if colors else np.array([value])
        others = [_point(other) if colors else np.array([other]) for other in accepted]
        near = any(np.linalg.norm(point - other) < _NEAR for other in others)
        if not near and not (colors and _is_blend(point, others)):
            accepted.append(value)
    return {value: value_counts[value] for value in accepted}


def _point(color: int) -> NDArray[np.int64]:
    return np.array([color >> 16, color >> 8 & 255, color & 255])


def _is_blend(point: NDArray[np.int64], others: Sequence[NDArray[np.int64]]) -> bool:
    """Whether a color lies on the line between two others."""
    for start, end in combinations(others, 2):
        along = end - start
        share = float(np.clip((point - start) @ along / max(along @ along, 1), 0, 1))
        if np.linalg.norm(start + share * along - point) < _NEAR:
            return True
    return False


def _found_values(paths: Sequence[Path]) -> tuple[Counter[int], Counter[int], bool]:
    """Value -> pixels, value -> pixels that equal their neighbors, and whether the values are colors.

    Values are colors if the channels of any file differ.
    """
    ids = IdLabels.native_ids(np.zeros(256, np.uint8), "found")
    value_counts: tuple[Counter[int], Counter[int]] = Counter(), Counter()
    errors: list[DataError] = []
    for path in paths:
        try:
            _count(ids, read_index_image(path, spread=()), value_counts)
        except FileError as error:
            if "labels are colors" in error.group:
                return *_found_colors(paths), True
            errors.append(error)
    if not value_counts[0]:
        raise errors[0] if errors else DataError("no label files")
    return *value_counts, False


def _found_colors(paths: Sequence[Path]) -> tuple[Counter[int], Counter[int]]:
    decoder = color_labels({0: 0})
    value_counts: tuple[Counter[int], Counter[int]] = Counter(), Counter()
    for path in paths:
        try:
            _count(decoder, decoder.values(path), value_counts)
        except DataError:
            continue
    return value_counts


def _count(
    decoder: IdLabels | ColorLabels, values: NDArray[Any], value_counts: tuple[Counter[int], Counter[int]]
) -> None:
    """Add the pixels of a file, and those that equal the pixels to their left and above."""
    here = values[1:, 1:]
    flat = here[(here == values[:-1, 1:]) & (here == values[1:, :-1])]
    value_counts[0].update(decoder.value_counts(values))
    if flat.size:
        value_counts[1].update(decoder.value_counts(flat))


def name_classes(classes: FoundClasses, ask: Ask | None) -> FoundClasses:
    """Ask for the name of each value without a known name; without ``ask`` the numbered names stay."""
    if ask is None or classes.named:
        return classes
    kind = "color" if classes.colors else "value"
    names = {
        value: ask(f"name of {kind} {classes.key(value)}, {classes.shares[value]:.1%} of the pixels", name).strip()
        or name
        for value, name in classes.names.items()
    }
    return replace(classes, names=names, named=True)
