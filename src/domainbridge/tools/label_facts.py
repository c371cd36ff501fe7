"""What the values of a domain's label files say: values without a class, palettes, transparency, binary masks."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.headers import UNREADABLE
from domainbridge.data.labels import IdLabels
from domainbridge.data.storage.tar import open_path
from domainbridge.types import IGNORE

__all__ = ["LabelFacts", "LabelFile", "binary_mask_advice", "look_at_label", "unnamed_colors"]

_MANY = 20_000
_NAMED = 5
_WARN_FROM = 0.05
_BLENDED = 12
"""From this number of unlisted values on, the values are those of a lossy format or of smoothed edges."""


@dataclass(frozen=True)
class LabelFile:
    """What one label file says beside its train ids.

    Attributes:
        found: stored value -> number of pixels.
        palette: value -> RGB, of the values that occur in a palette file.
        lossy: whether the format changes values.
        transparent: number of pixels with transparency.
    """

    value_counts: dict[int, int] = field(default_factory=dict)
    palette: dict[int, tuple[int, ...]] = field(default_factory=dict)
    lossy: bool = False
    transparent: int = 0


def look_at_label(decoder: IdLabels | ColorLabels, path: Path, values: NDArray[Any]) -> LabelFile:
    """Facts about a label file whose ``values`` are decoded."""
    value_counts = decoder.value_counts(values)
    if path.suffix.lower() == ".npy":
        return LabelFile(value_counts)
    palette: dict[int, tuple[int, ...]] = {}
    transparent = 0
    try:
        with open_path(path) as file, Image.open(file) as image:
            lossy = image.format in ("JPEG", "MPO")
            if image.mode == "P" and isinstance(decoder, IdLabels):
                colors = image.getpalette() or []
                palette = {value: tuple(colors[3 * value : 3 * value + 3]) for value in value_counts}
            if image.mode in ("RGBA", "LA"):
                transparent = int((np.asarray(image.getchannel("A")) < IGNORE).sum())
    except UNREADABLE:
        return LabelFile(value_counts)
    return LabelFile(value_counts, palette, lossy, transparent)


@dataclass
class LabelFacts:
    """The facts of a domain's label files, added up."""

    decoder: IdLabels | ColorLabels | None = None
    value_counts: Counter[int] = field(default_factory=Counter)
    palette: dict[int, tuple[tuple[int, ...], Path]] = field(default_factory=dict)
    conflict: str | None = None
    lossy: int = 0
    transparent: int = 0
    transparent_one: Path | None = None

    def add(self, path: Path, one: LabelFile) -> None:
        """Take in one file."""
        self.value_counts.update(one.value_counts)
        if len(self.value_counts) > _MANY:  # thousands of smoothed colors: the rare ones are not worth their memory
            self.value_counts = Counter(dict(self.value_counts.most_common(_MANY // 2)))
        self.lossy += one.lossy
        if one.transparent:
            self.transparent, self.transparent_one = self.transparent + 1, self.transparent_one or path
        for value, color in one.palette.items():
            known, first = self.palette.setdefault(value, (color, path))
            if known != color and self.conflict is None:
                self.conflict = (
                    f"palettes differ from file to file: value {value} is {_hex(known)} in {first} and {_hex(color)} "
                    f"in {path}. Values are read, not colors; if the colors are right, list them in label_map as "
                    "'#rrggbb': class"
                )

    def remarks(self) -> tuple[list[str], list[str]]:
        """(warnings, notes), each a sentence."""
        warnings = [self.conflict] if self.conflict else []
        notes = []
        if self.transparent:
            notes.append(
                f"{self.transparent} labels have transparent pixels, e.g. {self.transparent_one}; the color or value "
                "below the transparency counts"
            )
        decoder = self.decoder
        if (
            isinstance(decoder, IdLabels)
            and decoder.allowed is not None
            and not self.value_counts[0]
            and self.value_counts[1]
        ):
            warnings.append(
                "no label pixel is 0; if the ids of the files begin with 1, set label_map: {1: first class ...}"
            )
        text, share = self._unlisted()
        if text:
            (warnings if share >= _WARN_FROM else notes).append(text)
        return warnings, notes

    def _unlisted(self) -> tuple[str, float]:
        """A sentence about the values without a meaning, and their share of the pixels."""
        if self.decoder is None or not self.value_counts:
            return "", 0.0
        decoder, pixels = self.decoder, self.value_counts.total()
        others = Counter({value: count for value, count in self.value_counts.items() if not decoder.means(value)})
        if not others:
            return "", 0.0
        named = ", ".join(
            f"{decoder.describe(value)} {count / pixels:.1%} (nearest listed: {decoder.nearest_listed(value)})"
            for value, count in others.most_common(_NAMED)
        )
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        share = others.total() / pixels
        kind = "colors" if isinstance(decoder, ColorLabels) else "values"
        text = (
            f"{share:.1%} of the label pixels have {kind} that label_map does not list, and are ignored: {named}{more}"
        )
        if self.lossy:
            text += f"; {self.lossy} labels are JPEG files, which change values. Set label_nearest: true, or use PNG"
        elif len(others) >= _BLENDED:
            text += "; so many are left by smoothed or resized edges. Set label_nearest: true"
        return text, share

    def values(self) -> str:
        """The commonest values with their shares."""
        if self.decoder is None or not self.value_counts:
            return "none"
        pixels, decoder = self.value_counts.total(), self.decoder
        return ", ".join(
            f"{decoder.describe(v)} {count / pixels:.0%}" for v, count in self.value_counts.most_common(_NAMED)
        )


def unnamed_colors(pixels_of: Counter[int], share: float) -> str:
    """A sentence about the colors that a list of categories does not name; ``share``: of all pixels."""
    pixels = pixels_of.total() / share
    named = ", ".join(f"'#{color:06x}' {count / pixels:.1%}" for color, count in pixels_of.most_common(_NAMED))
    more = f" and {len(pixels_of) - _NAMED} more" if len(pixels_of) > _NAMED else ""
    return f"{share:.1%} of the label pixels have colors that labelmap.txt does not name: {named}{more}"


def binary_mask_advice(facts: LabelFacts, classes: tuple[str, ...]) -> str:
    """What to write in a recipe whose labels have pixels of one class at most."""
    values = sorted(facts.value_counts)
    if isinstance(facts.decoder, IdLabels) and len(values) == 2 and len(classes) >= 2:
        return f"a binary mask? label_map: {{{values[0]}: {classes[0]}, {values[1]}: {classes[1]}}}"
    if facts.decoder is None or not values:
        return "set label_map to the values of the files, e.g. label_map: {0: background, 255: object}"
    commonest = sorted(value for value, _ in facts.value_counts.most_common(_NAMED))
    listed = ", ".join(f"{facts.decoder.describe(value)}: CLASS" for value in commonest)
    names = ", ".join(classes[:_NAMED]) + (" ..." if len(classes) > _NAMED else "")
    return f"set label_map: {{{listed}}} with {names} or ignore in the place of each CLASS"


def _hex(color: tuple[int, ...]) -> str:
    return "#" + "".join(f"{part:02x}" for part in color)
