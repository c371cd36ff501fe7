"""Files about all inputs of ``predict``: the table of class shares, and the one COCO file."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from domainbridge.files import read_json
from domainbridge.tools.own_outputs import Done
from domainbridge.tools.polygon_files import coco_categories
from domainbridge.tools.predict_outputs import coco_part

__all__ = ["write_class_shares", "write_coco"]


def write_class_shares(path: Path, done: Sequence[Done], classes: Sequence[str], *, disagreement: bool) -> None:
    """A line per input: name, size, frames and the share of every class in percent of the pixels with a class.

    Args:
        path: to write.
        done: inputs with their counts.
        classes: names by train id.
        disagreement: also the percent of the pixels on which the two paths disagree.
    """
    more = ["disagreement"] if disagreement else []
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "width", "height", "frames", *more, *classes])
        for each in done:
            facts = each.shares
            total = max(sum(facts["pixels"]), 1)
            values = [facts["disagreement"] or 0] if disagreement else []
            shares = [f"{100 * count / total:.4f}" for count in (*values, *facts["pixels"])]
            table.writerow([facts["image"], facts["size"][1], facts["size"][0], facts.get("frames", 1), *shares])


def write_coco(path: Path, folder: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    """The annotations of all images in one file, written piece by piece.

    Args:
        path: to write.
        folder: of the results.
        names: of the images' results, without their endings.
        classes: names by train id.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write(
            f'{{"info": {{}}, "licenses": [],\n"categories": {json.dumps(coco_categories(classes))},\n"images": ['
        )
        for number, (position, part) in enumerate(_parts(folder, names)):
            image = {"id": position, **{key: part[key] for key in ("file_name", "width", "height")}}
            file.write((",\n" if number else "\n") + json.dumps(image))
        file.write('\n],\n"annotations": [')
        count = 0
        for position, part in _parts(folder, names):
            for annotation in part["annotations"]:
                count += 1
                file.write(
                    (",\n" if count > 1 else "\n") + json.dumps({"id": count, "image_id": position, **annotation})
                )
        file.write("\n]}\n")


def _parts(folder: Path, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position from 1 on, annotations) of every image that has some."""
    for position, name in enumerate(names, 1):
        part = read_json(coco_part(folder, name))
        if part is not None:
            yield position, part
