"""Pictures of a report: where the final model gained and lost most, as data URIs.

Nothing is predicted again: the reduced class maps that scoring kept are painted. That needs neither the networks nor
the data set, and takes milliseconds.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.report.bootstrap import image_iou
from domainbridge.report.comparison import included_classes, same_images
from domainbridge.report.disagreement import Disagreement
from domainbridge.report.run_facts import RunFacts, StageFacts
from domainbridge.run.image_records import ClassMap, ImageCounts
from domainbridge.types import IGNORE

__all__ = ["PictureRow", "Pictures", "disagreement_row", "most_changed"]

_AGREE, _GAINED, _LOST, _CHANGED = (225, 225, 225), (20, 140, 80), (200, 30, 60), (90, 60, 200)


@dataclass(frozen=True)
class PictureRow:
    """One image: (caption, data URI) pairs from left to right.

    Attributes:
        name: of the image.
        text: what it shows.
        columns: captions with their pictures.
    """

    name: str
    text: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pictures:
    """Rows of one target.

    Attributes:
        target: name.
        gained: images that gained most; without labels those that changed most.
        lost: images that lost most; none without labels.
        labeled: whether the target has labels.
    """

    target: str
    gained: tuple[PictureRow, ...]
    lost: tuple[PictureRow, ...]
    labeled: bool


def most_changed(run: RunFacts, target: str, rows: int) -> Pictures | None:
    """The images that gained and lost most between source-only and the latest model; ``rows`` of each at most.

    Without source-only or without kept pictures: None.
    """
    before, after, pictures = run.baseline, run.latest, run.pictures.get(target, {})
    if before is None or after is None or before is after:
        return None
    one, other = before.counts(target), after.counts(target)
    if one is None or other is None or not same_images(one, other):
        return None
    shown = [i for i in sorted(pictures) if i in one.maps and i in other.maps]
    if not shown:
        return None
    if not other.labeled:
        changed = {i: float((one.maps[i] != other.maps[i]).mean()) for i in shown}
        chosen = sorted(shown, key=lambda i: -changed[i])[:rows]
        made = (
            _row(run, before, after, target, i, f"{100 * changed[i]:.0f} % of the pixels have another class")
            for i in chosen
        )
        return Pictures(target, tuple(made), (), labeled=False)
    change = _changes(after, one, other)
    ranked = sorted((i for i in shown if np.isfinite(change[i])), key=lambda i: -change[i])
    gained = [i for i in ranked if change[i] > 0][:rows]
    lost = [i for i in reversed(ranked) if change[i] < 0][:rows]
    made_rows = [
        tuple(_row(run, before, after, target, i, f"mIoU of this image {change[i]:+.1f} points") for i in chosen)
        for chosen in (gained, lost)
    ]
    return Pictures(target, made_rows[0], made_rows[1], labeled=True)


def disagreement_row(run: RunFacts, item: Disagreement) -> PictureRow | None:
    """The image on which the paths differ most; None where no picture was kept."""
    if item.example not in run.pictures.get(item.target, {}):
        return None
    one, other = (run.stages[name] for name in item.paths)
    text = f"the paths differ on {100 * item.example_share:.0f} % of its pixels"
    return _row(run, one, other, item.target, item.example, text, judged=False)


def _changes(after: StageFacts, one: ImageCounts, other: ImageCounts) -> NDArray[np.float64]:
    """Gain of every image's mIoU, in points."""
    assert after.images is not None
    included = included_classes(after, after.images.classes)
    return image_iou(other.counts, included) - image_iou(one.counts, included)


def _row(
    run: RunFacts, before: StageFacts, after: StageFacts, target: str, index: int, text: str, *, judged: bool = True
) -> PictureRow:
    """An image with two stages' class maps; ``judged``: the label says which differences are gains and losses."""
    picture = run.pictures[target][index]
    one, other = before.counts(target), after.counts(target)
    assert one is not None
    assert other is not None
    palette = _palette(after)
    columns = [
        ("image", _jpeg_uri(picture.jpeg)),
        (before.name, _painted(one.maps[index], palette)),
        (after.name, _painted(other.maps[index], palette)),
    ]
    if picture.label is not None:
        columns.append(("truth", _painted(picture.label, palette)))
    label = picture.label if judged else None
    columns.append(("difference", _difference(one.maps[index], other.maps[index], label)))
    return PictureRow(other.names[index], text, tuple(columns))


def _difference(before: ClassMap, after: ClassMap, label: ClassMap | None) -> str:
    """Green: right only after; red: right only before; violet: changed, where no label says more."""
    changed = before != after
    colors = np.empty((*before.shape, 3), np.uint8)
    colors[:] = _AGREE
    if label is None or label.shape != before.shape:
        colors[changed] = _CHANGED
    else:
        colors[changed & (label == IGNORE)] = _CHANGED
        colors[(after == label) & (before != label)] = _GAINED
        colors[(before == label) & (after != label)] = _LOST
    return _uri(Image.fromarray(colors).quantize(8))


def _palette(stage: StageFacts) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    if stage.images is not None:
        palette[: len(stage.images.colors)] = stage.images.colors
    return palette


def _painted(array: ClassMap, palette: NDArray[np.uint8]) -> str:
    """A palette PNG, which is as small as the class map."""
    image = Image.fromarray(array)
    image.putpalette(palette.tobytes())
    return _uri(image)


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _jpeg_uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()
