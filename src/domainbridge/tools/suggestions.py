"""The files of ``suggest``: a split file, a picture, tasks for labeling tools. Other people's files stay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from domainbridge.data.dataset import FileDataset
from domainbridge.data.split_file import split_line
from domainbridge.data.transforms import resize_label
from domainbridge.errors import DataError, problem_list
from domainbridge.evaluation.grid import image_on, middle, on_grid
from domainbridge.evaluation.predictor import Predictor
from domainbridge.files import write_file
from domainbridge.models.segmenter import Segmenter
from domainbridge.tools.contact_sheet import SheetRow, draw_sheet
from domainbridge.tools.labeling_tasks import Task, cvat_xml, label_studio_json, regions
from domainbridge.tools.own_outputs import OwnOutputs
from domainbridge.tools.suggest import Ranking, disagreement

__all__ = ["FILES", "Suggestions", "check_free", "write_suggestions"]

FILES = ("split.txt", "sheet.jpg", "label-studio.json", "cvat.xml")
_ROWS = 60
"""Images in the picture; a JPEG has at most 65,500 rows of pixels."""


def check_free(out: Path) -> None:
    """See that no file is in the way; only unchanged files of an earlier ``suggest`` may be replaced.

    Raises:
        DataError: one is; all are listed.
    """
    earlier = OwnOutputs(out)
    foreign = [f"{path}" for name in FILES if (path := out / name).exists() and not earlier.holds(path)]
    if foreign:
        raise DataError(
            problem_list(
                "suggest: these files exist, and suggest did not write them, or they were changed since; choose "
                "another --out or move them",
                foreign,
            )
        )


@dataclass(frozen=True)
class Suggestions:
    """What to write about.

    Attributes:
        names: of all images, paths below the images folder.
        chosen: positions of the suggested ones, the most worthwhile first.
        ranking: of all images.
    """

    names: Sequence[str]
    chosen: Sequence[int]
    ranking: Ranking


def write_suggestions(
    out: Path,
    suggestions: Suggestions,
    files: FileDataset,
    models: Sequence[Segmenter],
    predictor: Predictor,
    report: Callable[[str], None],
) -> None:
    """Write the four files; see :data:`FILES`.

    Args:
        out: folder, made when missing.
        suggestions: names and choice.
        files: the target.
        models: those whose disagreement counts.
        predictor: whose predictions are shown.
        report: gets a line for each remark.

    Raises:
        StorageError: one cannot be written.
    """
    tasks, rows = [], []
    for rank, index in enumerate(suggestions.chosen, 1):
        name = suggestions.names[index]
        image = files.read_image(index)
        prediction = predictor.predict(image)
        tasks.append(Task(name, prediction.shape[0], prediction.shape[1], regions(prediction, len(predictor.classes))))
        if rank <= _ROWS:
            value = float(suggestions.ranking.disagreement[index])
            rows.append(_row(f"{rank}. {name}  {value:.1f} %", files, index, models, predictor, prediction))
    if len(tasks) > _ROWS:
        report(f"note: the picture shows the first {_ROWS} of {len(tasks)} images")
    out.mkdir(parents=True, exist_ok=True)
    record = OwnOutputs(out)
    texts = {
        "split.txt": "".join(f"{split_line(task.name)}\n" for task in tasks),
        "label-studio.json": label_studio_json(tasks, predictor.space),
        "cvat.xml": cvat_xml(tasks, predictor.space),
    }
    for name, text in texts.items():
        _write(out / name, record, partial(Path.write_text, data=text, encoding="utf-8"))
    sheet = draw_sheet(rows)
    _write(out / "sheet.jpg", record, lambda path: sheet.save(path, format="JPEG", quality=90))


def _write(path: Path, record: OwnOutputs, save: Callable[[Path], object]) -> None:
    def recorded(temporary: Path) -> None:
        save(temporary)
        record.add(path, temporary, path)

    write_file(path, recorded)


@torch.inference_mode()
def _row(
    title: str,
    files: FileDataset,
    index: int,
    models: Sequence[Segmenter],
    predictor: Predictor,
    prediction: NDArray[np.uint8],
) -> SheetRow:
    image = files[index].image
    tensor = image_on(predictor.device, image)
    differing = disagreement([on_grid(model(tensor).logits, tensor) for model in models]).cpu().numpy()
    ids = resize_label(prediction, (image.shape[0], image.shape[1]))
    return SheetRow(title, middle(image), middle(predictor.palette[ids]), differing)
