"""Golden h, i and j: metrics, rare class probabilities, label tables."""

from pathlib import Path

import cv2
import golden_arrays as golden
import numpy as np
import torch

from domainbridge.data.index_image import read_index_image
from domainbridge.data.label_ids import CITYSCAPES_IDS, MAPILLARY_V12_NAMES, SYNTHIA_IDS, id_table
from domainbridge.data.layouts.base import LAYOUTS
from domainbridge.data.statistics import rare_class_probabilities
from domainbridge.evaluation.confusion import confusion_matrix, scores
from domainbridge.tools.convert import TO_LABEL_IDS, Conversion, convert_layout


def test_metrics(compare) -> None:
    arrays = golden.arrays("h_metrics.npz")
    for case in golden.table("h_metrics.json"):
        name, count = f"c{case['case']}", case["classes"]
        label = torch.from_numpy(arrays[f"{name}_gt"]).long()
        prediction = torch.from_numpy(arrays[f"{name}_pred"]).long()
        matrix = sum(confusion_matrix(rows, guess, count) for rows, guess in zip(label, prediction, strict=True))
        compare("h intersections", matrix.diagonal(), arrays[f"{name}_intersect"], 0)
        compare("h label areas", matrix.sum(1), arrays[f"{name}_label_area"], 0)
        compare("h predicted areas", matrix[:, :-1].sum(0), arrays[f"{name}_pred_area"], 0)
        scored = scores(matrix, tuple(map(str, range(count))), len(label))
        iou = np.array([np.nan if value is None else value / 100 for value in scored.iou.values()])
        compare("h IoU", iou, arrays[f"{name}_IoU"], 1e-6)
        compare("h mIoU", scored.miou / 100, arrays[f"{name}_mIoU"], 1e-6)
        compare("h accuracy", scored.accuracy / 100, arrays[f"{name}_aAcc"], 1e-6)
        official = case.get("cityscapesscripts", {}).get("classScores")
        if official is not None:
            absent = np.isnan(iou)
            compare("h IoU of cityscapesscripts", iou[~absent], np.array(official)[~absent], 1e-8)


def test_rare_class_probabilities(compare) -> None:
    recorded = golden.table("i_rcs.json")
    counts = np.zeros(19, np.int64)
    for image in recorded["sample_class_stats"]:
        for key, pixels in image.items():
            if key != "file":
                counts[int(key)] += pixels
    for result in recorded["results"]:
        classes, probabilities = rare_class_probabilities(counts, result["temperature"])
        assert classes.tolist() == result["classes"]
        compare("i rare class probabilities", probabilities, np.float32(result["probs"]), 1e-6)


def test_label_tables(compare) -> None:
    recorded = golden.table("j_label_maps.json")
    cityscapes = id_table(CITYSCAPES_IDS)
    compare("j synscapes", cityscapes, recorded["synscapes"], 0)
    compare("j synthia", id_table(SYNTHIA_IDS), recorded["synthia"], 0)
    for key, train_id in recorded["cityscapes_id_to_trainid"].items():
        if int(key) >= 0:
            compare("j cityscapes", cityscapes[int(key)], train_id, 0)
    for value, (name, train_id) in enumerate(MAPILLARY_V12_NAMES.items()):
        compare("j mapillary v1.2", train_id, recorded["mapillary_v1.2_trainId"][f"{value}:{name}"], 0)
        label_id = recorded["mapillary_v1.2_labelId"][f"{value}:{name}"]
        compare("j mapillary v1.2 label ids", TO_LABEL_IDS[train_id], label_id, 0)
    assert len(MAPILLARY_V12_NAMES) == len(recorded["mapillary_v1.2_trainId"])


def test_converted_files_hold_the_recorded_values(compare, tmp_path: Path) -> None:
    """The converters' output for an image that holds every id."""
    recorded = golden.table("j_label_maps.json")
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    synthia = np.stack([np.zeros((16, 16)), np.full((16, 16), 9), values], 2).astype(np.uint16)
    for folder in ("img/rgb", "img/class", "RGB", "GT/LABELS"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("img/rgb/1.png", "RGB/1.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((16, 16, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "img/class/1.png"), values)
    cv2.imwrite(str(tmp_path / "GT/LABELS/1.png"), synthia)
    for dataset in ("synscapes", "synthia"):
        convert_layout(dataset, tmp_path, None, Conversion(tmp_path / dataset), lambda done, total: None)
        written = read_index_image(tmp_path / dataset / "labels/1.png")
        compare(f"j {dataset}, converted", written.ravel(), recorded[dataset], 0)


def test_gta_table_is_deliberately_not_the_recorded_one() -> None:
    """Recorded is 255 for every id: with it no GTA pixel would be labeled. Ours maps the ids as Cityscapes does."""
    assert set(golden.table("j_label_maps.json")["gta"]) == {255}
    decoder = LAYOUTS["gta5"].decoder(Path())
    assert np.array_equal(decoder.table[:256], id_table(CITYSCAPES_IDS))
