"""Small trees on disk, laid out and encoded as each data set's archives unpack."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (32, 64)
"""Height and width of the drawn images: the 1:2 of Cityscapes."""
ROAD, BUILDING, SKY, CAR = 0, 2, 10, 13
"""The Cityscapes train ids of every drawn scene; the top left corner is no class."""


def scene(number: int) -> np.ndarray:
    """Sky above buildings above a road with a car; 255 in the corner."""
    label = np.full(SIZE, ROAD, np.uint8)
    label[:20] = BUILDING
    label[: 8 + number % 4] = SKY
    label[22:28, 10 + number : 30 + number] = CAR
    label[:2, :2] = 255
    return label


def _stored(label: np.ndarray, ids: dict[int, int], nothing: int) -> np.ndarray:
    table = np.full(256, nothing, np.int32)
    table[list(ids)] = list(ids.values())
    return table[label]


def _image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 60, (*SIZE, 3))
    Image.fromarray((scene(number)[..., None] * 9 % 190 + noise).astype(np.uint8)).save(path)


def _gray(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


CITY_IDS = {ROAD: 7, BUILDING: 11, SKY: 23, CAR: 26}


def gta5(root: Path) -> None:
    """Palette PNGs, names of five digits."""
    for number in range(1, 5):
        _image(root / f"images/{number:05}.png", number)
        values = _stored(scene(number), CITY_IDS, 0).astype(np.uint8)
        label = Image.fromarray(values)
        label.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
        (root / "labels").mkdir(parents=True, exist_ok=True)
        label.save(root / f"labels/{number:05}.png")


def synscapes(root: Path) -> None:
    """Numbers without leading zeros; ids as in Cityscapes; more folders beside the two that count."""
    for number in (1, 2, 10, 11):
        _image(root / f"img/rgb/{number}.png", number)
        _gray(root / f"img/class/{number}.png", _stored(scene(number), CITY_IDS, 0))
        _gray(root / f"img/instance/{number}.png", np.zeros(SIZE))


def synthia(root: Path) -> None:
    """Labels of three 16-bit channels: class, instance, nothing."""
    for number in range(4):
        _image(root / f"RGB/{number:07}.png", number)
        values = _stored(scene(number), {ROAD: 3, BUILDING: 2, SKY: 1, CAR: 8}, 0).astype(np.uint16)
        instance = np.full(SIZE, 300 + number, np.uint16)
        path = root / f"GT/LABELS/{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.stack([np.zeros_like(values), instance, values], 2))


def cityscapes(root: Path) -> None:
    """Cities, endings, and the other label files beside labelIds."""
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau")):
        for number in range(2):
            stem = f"{city}_{number:06}_000019"
            _image(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", number)
            label = root / f"gtFine/{split}/{city}"
            _gray(label / f"{stem}_gtFine_labelIds.png", _stored(scene(number), CITY_IDS, 3))
            _gray(label / f"{stem}_gtFine_instanceIds.png", np.zeros(SIZE))
            _gray(label / f"{stem}_gtFine_color.png", np.zeros((*SIZE, 3)))


def urbansyn(root: Path) -> None:
    """Train ids, 19 for no class; names that begin otherwise in each folder; colored labels beside those that count."""
    for number in range(1, 5):
        _image(root / f"rgb/rgb_{number:04}.png", number)
        _gray(root / f"ss/ss_{number:04}.png", np.where(scene(number) == 255, 19, scene(number)))
        _gray(root / f"ss_colour/ss_colour_{number:04}.png", np.zeros((*SIZE, 3)))


def wilddash2(root: Path) -> None:
    """Cityscapes' ids, but for road markings and a van; no splits."""
    for number in range(4):
        _image(root / f"images/ab0000_{number:05}.jpg", number)
        values = _stored(scene(number), CITY_IDS, 0)
        values[29:] = 38
        values[22:28][values[22:28] == 26] = 35
        _gray(root / f"labels/ab0000_{number:05}.png", values)
        _gray(root / f"instances/ab0000_{number:05}.png", np.zeros(SIZE))


V12_IDS = {ROAD: 13, BUILDING: 17, SKY: 27, CAR: 55}


def mapillary(root: Path) -> None:
    """JPEGs and PNGs of the same random names, training and validation, a config at the root."""
    from domainbridge.data.label_ids import MAPILLARY_V12_NAMES

    for split in ("training", "validation"):
        for number in range(3):
            _image(root / f"{split}/images/abc{number}-_X.jpg", number)
            _gray(root / f"{split}/labels/abc{number}-_X.png", _stored(scene(number), V12_IDS, 65))
            _gray(root / f"{split}/instances/abc{number}-_X.png", np.zeros(SIZE))
    labels = [{"name": name.lower(), "readable": name, "evaluate": True} for name in MAPILLARY_V12_NAMES]
    (root / "config.json").write_text(json.dumps({"labels": labels, "version": "1.1", "mapping": "public"}))


def mapillary_v2(root: Path) -> None:
    """The newer archive: v1.2 and v2.0 labels, a config for each; 124 classes in v2.0."""
    others = [f"Class {number}" for number in range(120)]
    names = [*others[:21], "Road", *others[21:24], "Building", "Sky", *others[24:90], "Car", *others[90:]]
    ids = {ROAD: names.index("Road"), BUILDING: names.index("Building"), SKY: names.index("Sky")}
    for split in ("training", "validation"):
        for number in range(3):
            _image(root / f"{split}/images/{number}AbC.jpg", number)
            _gray(root / f"{split}/v1.2/labels/{number}AbC.png", _stored(scene(number), V12_IDS, 65))
            v2 = _stored(scene(number), {**ids, CAR: names.index("Car")}, 123)
            _gray(root / f"{split}/v2.0/labels/{number}AbC.png", v2)
    labels = [{"name": name, "readable": name, "evaluate": True} for name in names]
    (root / "config_v2.0.json").write_text(json.dumps({"labels": labels, "version": "2.0"}))


def acdc(root: Path) -> None:
    """Condition, split, recording."""
    for condition in ("fog", "night", "rain", "snow"):
        for split in ("train", "val"):
            stem = f"GOPR0475_frame_{len(condition):06}"
            folder = f"{condition}/{split}/GOPR0475"
            _image(root / f"rgb_anon/{folder}/{stem}_rgb_anon.png", len(condition))
            _image(root / f"rgb_anon/{condition}/{split}_ref/GOPR0475/{stem}_rgb_ref_anon.png", 1)
            _gray(root / f"gt/{folder}/{stem}_gt_labelTrainIds.png", scene(len(condition)))
            _gray(root / f"gt/{folder}/{stem}_gt_labelIds.png", _stored(scene(3), CITY_IDS, 0))


def dark_zurich(root: Path) -> None:
    """Training images by time of day, without labels; night alone for validation."""
    for number in range(3):
        for time in ("night", "twilight", "day"):
            _image(root / f"rgb_anon/train/{time}/GOPR0345/GOPR0345_frame_{number:06}_rgb_anon.png", number)
        stem = f"rgb_anon/val/night/GOPR0356/GOPR0356_frame_{number:06}"
        _image(root / f"{stem}_rgb_anon.png", number)
        label = stem.replace("rgb_anon", "gt", 1)
        _gray(root / f"{label}_gt_labelTrainIds.png", scene(number))


def bdd100k(root: Path) -> None:
    """Train ids, as distributed."""
    for split in ("train", "val"):
        for number in range(3):
            _image(root / f"images/10k/{split}/0a0a0b1a-{number}.jpg", number)
            _gray(root / f"labels/sem_seg/masks/{split}/0a0a0b1a-{number}.png", scene(number))


def idd(root: Path) -> None:
    """Polygons in JSON; no label images come with the archive."""
    for split in ("train", "val"):
        for number in range(3):
            _image(root / f"leftImg8bit/{split}/{number}/frame{number:04}_leftImg8bit.png", number)
            path = root / f"gtFine/{split}/{number}/frame{number:04}_gtFine_polygons.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": _polygons(number)}))


def _polygons(number: int) -> list[dict[str, object]]:
    """The scene's rectangles, last on top; a deleted one that must not show."""
    names = {ROAD: "road", BUILDING: "building", SKY: "sky", CAR: "car", 255: "fallback background"}
    boxes = {ROAD: (0, 0, 31, 63), BUILDING: (0, 0, 19, 63), SKY: (0, 0, 7 + number % 4, 63)}
    boxes |= {CAR: (22, 10 + number, 27, 29 + number), 255: (0, 0, 1, 1)}
    drawn: list[dict[str, object]] = [{"label": "bus", "deleted": 1, "polygon": [[0, 0], [63, 0], [63, 31]]}]
    for train_id, (top, left, bottom, right) in boxes.items():
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        drawn.append({"label": names[train_id], "deleted": 0, "polygon": corners})
    return [*drawn[1:], drawn[0]]


def camvid(root: Path) -> None:
    """701 stills in one folder, 32 colors."""
    colors = {ROAD: (128, 64, 128), BUILDING: (128, 0, 0), SKY: (128, 128, 128), CAR: (64, 128, 192), 255: (0, 0, 0)}
    for number in range(3):
        _image(root / f"701_StillsRaw_full/0001TP_{number:06}.png", number)
        painted = np.zeros((*SIZE, 3), np.uint8)
        for train_id, color in colors.items():
            painted[scene(number) == train_id] = color
        _gray(root / f"LabeledApproved_full/0001TP_{number:06}_L.png", painted)


def camvid_of_segnet(root: Path) -> None:
    """Split folders, ids 0 .. 10 and 11 for void."""
    ids = {ROAD: 3, BUILDING: 1, SKY: 0, CAR: 8}
    for split in ("train", "val", "test"):
        for number in range(3):
            _image(root / f"{split}/0001TP_{number:06}.png", number)
            _gray(root / f"{split}annot/0001TP_{number:06}.png", _stored(scene(number), ids, 11))


TREES: dict[str, Callable[[Path], None]] = {
    "gta5": gta5,
    "synscapes": synscapes,
    "synthia": synthia,
    "urbansyn": urbansyn,
    "wilddash2": wilddash2,
    "cityscapes": cityscapes,
    "mapillary": mapillary,
    "mapillary-v2": mapillary_v2,
    "acdc": acdc,
    "dark-zurich": dark_zurich,
    "bdd100k": bdd100k,
    "idd": idd,
    "camvid": camvid,
    "camvid-segnet": camvid_of_segnet,
}
