"""Which images to label next: the choice against plain loops, and files that our own readers take back."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainbridge.data.annotations.labels import FORMATS
from domainbridge.data.annotations.listing import list_annotations
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.label_spaces import label_space
from domainbridge.data.split_file import split_line
from domainbridge.errors import DataError
from domainbridge.tools.contact_sheet import SheetRow, draw_sheet
from domainbridge.tools.labeling_tasks import Task, cvat_xml, label_studio_json, regions
from domainbridge.tools.own_outputs import OwnOutputs
from domainbridge.tools.suggest import Ranking, disagreement, spread_out
from domainbridge.tools.suggestions import FILES, check_free

SPACE = label_space("road", ["background", "crack", "pot hole"])


def test_two_models_disagree_where_their_classes_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    differing = disagreement([one, other])
    for y in range(4):
        for x in range(5):
            classes = [max(range(3), key=lambda kind: float(logits[kind, y, x])) for logits in (one, other)]
            assert float(differing[y, x]) == float(classes[0] != classes[1])
    assert float(disagreement([torch.zeros(3, 4, 5)]).mean()) == pytest.approx(1)


def greedy(values: list[float], features: list[np.ndarray], count: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < min(count, len(values)):
        gains = {}
        for number, value in enumerate(values):
            if number not in chosen:
                nearest = min((float(np.linalg.norm(features[number] - features[c])) for c in chosen), default=1.0)
                gains[number] = value * nearest
        chosen.append(max(gains, key=lambda number: gains[number]))
    return chosen


def test_the_choice_is_that_of_a_loop() -> None:
    generator = np.random.default_rng(3)
    values, features = generator.random(30), generator.random((30, 4))
    chosen = spread_out(torch.from_numpy(values), torch.from_numpy(features), 12)
    assert chosen == greedy(values.tolist(), list(features), 12)
    assert chosen[0] == values.argmax()


def test_copies_of_an_image_are_chosen_once() -> None:
    values = torch.tensor([0.9, 0.9, 0.9, 0.2])
    features = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert spread_out(values, features, 2) == [0, 3]
    assert sorted(spread_out(values, features, 9)) == [0, 1, 2, 3]


def test_without_disagreement_images_differ() -> None:
    ranking = Ranking(torch.zeros(3), torch.tensor([[1.0, 0], [1, 0], [0, 1]]))
    assert ranking.tells_nothing
    assert ranking.choose(2) == [0, 2]


NAMES = ["monday/a.jpg", "#1.jpg", "image 7.jpg", "two words.jpg", "b, c.jpg", "é.jpg", "path.jpg"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in [*NAMES, "unused.jpg"]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(path)
    return tmp_path / "images"


def test_the_list_reads_as_a_split(images: Path, tmp_path: Path) -> None:
    """Also names that look like comments, headers or columns."""
    (tmp_path / "split.txt").write_text("".join(f"{split_line(name)}\n" for name in NAMES), encoding="utf-8")
    listing = list_folder(images, None, FolderRule(split=tmp_path / "split.txt"))
    assert listing.problems == ()
    assert [path.relative_to(images).as_posix() for path in listing.images] == NAMES


def prediction() -> np.ndarray:
    classes = np.zeros((40, 60), np.uint8)
    classes[5:20, 10:50] = 1
    classes[10:14, 20:30] = 2
    classes[0, 59] = 2
    return classes


def test_regions_cover_the_prediction() -> None:
    outlines = regions(prediction(), 3)
    assert [region.train_id for region in outlines] == [0, 1, 2], "larger first; a single pixel is left out"
    canvas = np.full((40, 60), 9, np.uint8)
    import cv2

    for region in outlines:
        cv2.fillPoly(canvas, [region.points.astype(np.int32)], region.train_id)
    assert (canvas == prediction()).mean() > 0.99


def tasks() -> list[Task]:
    return [Task(name, 40, 60, regions(prediction(), 3)) for name in NAMES]


def test_cvat_reads_back_with_labels(images: Path, tmp_path: Path) -> None:
    """As CVAT's export would have them after a person drew a polygon into every image."""
    path = tmp_path / "cvat.xml"
    path.write_text(cvat_xml(tasks(), SPACE), encoding="utf-8")
    index = FORMATS["cvat"].index(path)
    assert [category.name for category in index.categories] == list(SPACE.classes)
    assert index.problems == ()
    tree = ElementTree.parse(path)
    for image in tree.iter("image"):
        points = {"label": "crack", "points": "10,5;50,5;50,20;10,20", "z_order": "0"}
        ElementTree.SubElement(image, "polygon", points)
    tree.write(path)
    listing = list_annotations(images, "cvat", path, FolderRule())
    assert listing.problems == ()
    assert {image.relative_to(images).as_posix() for image in listing.images} == set(NAMES)
    drawing = FORMATS["cvat"].draw((FORMATS["cvat"].index(path).entries[0].label,), path)
    assert (drawing.height, drawing.width) == (40, 60)
    assert [name for name, _ in drawing.shapes] == ["crack"]


def test_label_studio_reads_back_with_labels(images: Path, tmp_path: Path) -> None:
    """As its export would have them after a person accepted every prediction."""
    path = tmp_path / "label-studio.json"
    content = json.loads(label_studio_json(tasks(), SPACE))
    exported = [
        {**task, "id": number, "annotations": [{"result": task["predictions"][0]["result"]}]}
        for number, task in enumerate(content)
    ]
    path.write_text(json.dumps(exported))
    assert FORMATS["label-studio"].find(path) == path
    listing = list_annotations(images, "label-studio", path, FolderRule())
    assert listing.problems == ()
    assert {image.relative_to(images).as_posix() for image in listing.images} == set(NAMES)
    index = FORMATS["label-studio"].index(path)
    assert {category.name for category in index.categories} == set(SPACE.classes)
    drawing = FORMATS["label-studio"].draw((index.entries[0].label,), path)
    assert [name for name, _ in drawing.shapes] == ["background", "crack", "pot hole"]


def test_the_sheet_has_a_row_per_image() -> None:
    image = np.full((20, 40, 3), 100, np.uint8)
    differing = np.zeros((5, 10), np.float32)
    differing[:, 5:] = 1
    sheet = np.asarray(draw_sheet([SheetRow(f"{n}. ☃ a.jpg", image, image, differing) for n in range(3)]))
    assert sheet.shape == (3 * (180 + 18), 3 * 360, 3)
    left, right = sheet[100, 760], sheet[100, 1060]
    assert left[0] == left[1] == left[2]
    assert right[0] > 2 * right[1]


def test_other_peoples_files_stay(tmp_path: Path) -> None:
    check_free(tmp_path / "not there yet")
    record = OwnOutputs(tmp_path)
    for name in FILES:
        (tmp_path / name).write_text("ours")
        record.add(tmp_path / name, tmp_path / name, tmp_path / name)
    check_free(tmp_path)
    (tmp_path / "cvat.xml").write_text("with a person's labels")
    with pytest.raises(DataError, match=r"(?s)changed since.*cvat\.xml$"):
        check_free(tmp_path)
