"""Several sources that annotate different classes: a class that one of them lacks may be in its background."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.annotations.reading import BACKGROUND_NAMES, normal
from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.dataset import FileDataset
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.labels import IdLabels, LabelDecoder, PolygonLabels
from domainbridge.types import IGNORE

__all__ = ["annotated_classes", "with_partial_backgrounds"]


def annotated_classes(decoder: LabelDecoder) -> frozenset[int]:
    """Train ids that label files can have by their label map, label space or categories."""
    match decoder:
        case IdLabels():
            ids = set(decoder.listed_train_ids().tolist())
        case ColorLabels():
            ids = set(decoder.train_ids_of_colors.tolist())
        case PolygonLabels():
            ids = set(decoder.train_ids.values())
        case AnnotationLabels():
            ids = {*decoder.train_ids.values(), decoder.unannotated}
    return frozenset(ids - {IGNORE})


def with_partial_backgrounds(
    sources: Sequence[FileDataset], complete: Sequence[bool], space: LabelSpace
) -> tuple[FileDataset, ...]:
    """Sources whose background is ignored where it may show a class that only other sources annotate.

    Args:
        sources: labeled domains in ``space``.
        complete: per source, whether its background shows no other class for certain.
        space: of their train ids; nothing is done without a class named background.
    """
    background = next((index for index, name in enumerate(space.classes) if normal(name) in BACKGROUND_NAMES), None)
    known = [annotated_classes(source.decoder) if source.decoder is not None else frozenset() for source in sources]
    everything = frozenset().union(*known)
    result = []
    for source, annotated, whole in zip(sources, known, complete, strict=True):
        lacking = sorted(everything - annotated)
        if background in annotated and lacking and not whole and source.decoder is not None:
            table = np.arange(256, dtype=np.uint8)
            table[background] = IGNORE
            absent = ", ".join(space.classes[index] for index in lacking)
            note = (
                f"classes that other sources annotate and this one does not: {absent}. The background here may show "
                "them and is ignored; complete_background: true keeps it"
            )
            source = replace(source, decoder=source.decoder.compose(table), notes=(*source.notes, note))
        result.append(source)
    return tuple(result)
