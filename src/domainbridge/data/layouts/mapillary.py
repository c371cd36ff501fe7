"""Mapillary Vistas (Neuhold et al., ICCV 2017), with the labels of version 1.2 or 2.0."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from domainbridge.data.label_ids import MAPILLARY_V12_NAMES, MAPILLARY_V20_NAMES, id_table
from domainbridge.data.labels import IdLabels, LabelDecoder
from domainbridge.data.layouts.base import DirectoryScheme, Layout, register_layout
from domainbridge.errors import DataError
from domainbridge.types import IGNORE

_SPLITS = {"train": ("training",), "val": ("validation",)}
_COUNTS = {"train": 18000, "val": 2000}


def _decoder_by_config(
    files: Sequence[str], train_ids: Mapping[str, int], default_order: Sequence[str] | None
) -> Callable[[Path], LabelDecoder]:
    """A ``Layout.decoder`` that reads the order of the classes from a JSON file of the data set.

    A label value is a position in this order.

    Args:
        files: names of the JSON file; the first existing file counts.
        train_ids: class name -> train id; unlisted names are ignored.
        default_order: class names in the order of the label values if no file exists; None: a file must exist.
    """

    def decoder(root: Path) -> LabelDecoder:
        config = next((root / file for file in files if (root / file).is_file()), None)
        if config is not None:
            names = _class_names(config)
            if not set(names) & set(train_ids):
                raise DataError(f"{config}: none of its {len(names)} classes is known, e.g. {', '.join(names[:3])}")
        elif default_order is not None:
            names = default_order
        else:
            raise DataError(
                f"{root / files[0]}: no such file; the file is part of the archive and lists the classes of the labels"
            )
        table = id_table({value: train_ids.get(name, IGNORE) for value, name in enumerate(names)})
        return IdLabels.native_ids(table, "mapillary")

    return decoder


def _class_names(config: Path) -> Sequence[str]:
    try:
        return [str(entry["readable"]) for entry in json.loads(config.read_text(encoding="utf-8"))["labels"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{config}: expected JSON with a list 'labels' of classes: {error}") from error


register_layout("mapillary")(
    Layout(
        title="Mapillary Vistas, labels v1.2",
        schemes=(
            DirectoryScheme("{split}/images", "{split}/v1.2/labels"),
            DirectoryScheme("{split}/images", "{split}/labels"),
        ),
        decoder=_decoder_by_config(("config_v1.2.json", "config.json"), MAPILLARY_V12_NAMES, [*MAPILLARY_V12_NAMES]),
        label_space="cityscapes19",
        unpack="unpack the Mapillary Vistas v1.2 or v2.0 archive so that training and validation are in the root "
        "folder",
        splits=_SPLITS,
        counts=_COUNTS,
    )
)
register_layout("mapillary-v2")(
    Layout(
        title="Mapillary Vistas, labels v2.0",
        schemes=(DirectoryScheme("{split}/images", "{split}/v2.0/labels"),),
        decoder=_decoder_by_config(("config_v2.0.json",), MAPILLARY_V20_NAMES, None),
        label_space="cityscapes19",
        unpack="unpack the Mapillary Vistas v2.0 archive so that training, validation and config_v2.0.json are in the "
        "root folder",
        splits=_SPLITS,
        counts=_COUNTS,
    )
)
