"""What `predict` writes for images, maps and videos, from which inputs, and what it leaves out."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import domainbridge
from domainbridge.data.label_spaces import label_space
from domainbridge.errors import DataError, RecipeError, SomeFilesError
from domainbridge.evaluation import windows
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.evaluation.predictor import Predictor
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.tools import predict_job
from domainbridge.tools.own_outputs import RECORD
from domainbridge.tools.polygons import filled_outlines, traced_regions
from domainbridge.tools.predict_options import class_ids

rasterio = pytest.importorskip("rasterio")
Affine = pytest.importorskip("affine").Affine

SPEC = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def model() -> Predictor:
    space = label_space("abc", list(CLASSES))
    torch.manual_seed(4)
    network = build_segmenter(SPEC)
    torch.nn.init.normal_(network.head.classifier.weight, std=20.0)
    return Predictor(network, ModelConfig(SPEC, space.name, space.classes, space.colors, None))


def paint(path: Path, size: tuple[int, int] = (40, 48), seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.resize(np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8), size[::-1])
    Image.fromarray(image).save(path)
    return image


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_every_output_of_an_image_says_the_same(model: Predictor, tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png")
    paint(tmp_path / "in/b.png", (31, 33), seed=2)
    count = domainbridge.predict(
        *(model, tmp_path / "in", tmp_path / "out"),
        overlay=True,
        legend=True,
        colors=True,
        confidence=True,
        probabilities=True,
        polygons=["geojson", "coco", "labelme"],
        min_area=0,
        tolerance=0,
        shares=True,
    )
    assert count == 2
    out = tmp_path / "out"
    classes = read(out / "a.png")
    assert len(np.unique(classes)) > 1, "or the test would prove nothing"
    assert np.array_equal(read(out / "a_colors.png"), model.palette[classes])
    assert read(out / "a_overlay.jpg").shape[0] > 40, "the legend stands below"
    archive = np.load(out / "a_probabilities.npz")
    assert archive["classes"].tolist() == list(CLASSES)
    assert archive["probabilities"].shape == (40, 48, 3)
    assert np.array_equal(archive["probabilities"].max(2), read(out / "a_confidence.png"))
    with (out / "class-shares.csv").open() as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    for number, name in enumerate(CLASSES):
        assert abs(float(rows["a.png"][name]) - 100 * (classes == number).mean()) < 1e-3
    features = json.loads((out / "a.geojson").read_text())["features"]
    assert sum(each["properties"]["pixels"] for each in features) == pytest.approx(classes.size, rel=0.02)
    shapes = json.loads((out / "a.json").read_text())
    assert (out / shapes["imagePath"]).resolve() == (tmp_path / "in/a.png").resolve()
    coco = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png"]
    assert {each["image_id"] for each in coco["annotations"]} == {1, 2}
    assert len({each["id"] for each in coco["annotations"]}) == len(coco["annotations"])


def test_polygons_give_the_class_map_again() -> None:
    noise = cv2.resize(np.random.default_rng(1).integers(0, 3, (12, 15), np.uint8), (150, 120), interpolation=0)
    noise[40:60, 20:90] = 1
    noise[45:50, 30:60] = 2
    drawn = Image.new("L", (150, 120), 255)
    for region in filled_outlines(noise, 0, 0):
        ImageDraw.Draw(drawn).polygon([tuple(p) for p in region.outer.tolist()], region.train_id, region.train_id)
    assert np.array_equal(np.asarray(drawn), noise)
    regions = traced_regions(noise, 0, 0)
    centers = np.zeros_like(noise)
    for region in regions:
        mask = np.zeros((480, 600), np.uint8)  # a fourth of a pixel: centers of pixels are whole numbers
        rings = [np.round(ring * 4).astype(np.int32) for ring in (region.outer, *region.holes)]
        cv2.fillPoly(mask, rings, 1)
        centers[mask[2::4, 2::4] == 1] = region.train_id
    assert np.array_equal(centers, noise)
    assert sum(region.area for region in regions) == pytest.approx(noise.size, rel=0.01)
    assert len(traced_regions(noise, 500, 1)) < len(regions)


def test_values_of_a_data_set(model: Predictor, tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    domainbridge.predict(model, tmp_path / "a.png", tmp_path / "plain")
    domainbridge.predict(model, tmp_path / "a.png", tmp_path / "out", ids={10: "a", 20: "b", 30: "c", 0: "ignore"})
    assert np.array_equal(
        read(tmp_path / "out/a.png"), np.array([10, 20, 30], np.uint8)[read(tmp_path / "plain/a.png")]
    )
    assert class_ids("cityscapes", ("road", "car")) == (7, 26)
    with pytest.raises(RecipeError, match="class 'c' has no value"):
        class_ids({1: "a", 2: "b"}, CLASSES)


def test_patterns_and_lists_with_missing_files(model: Predictor, tmp_path: Path) -> None:
    for name in ("x/a.png", "x/deep/b.png", "x/notes.txt"):
        paint(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("nothing.png\n")
    assert domainbridge.predict(model, tmp_path / "x/**/*.png", tmp_path / "one") == 2
    assert written(tmp_path / "one") == {"a.png", "deep/b.png", RECORD}
    (tmp_path / "list.txt").write_text("# images\nx/a.png\nx/gone.png\nx/deep\n")
    with pytest.raises(SomeFilesError, match=r"2 images were segmented, 1 not(.|\n)*gone.png: named in"):
        domainbridge.predict(model, tmp_path / "list.txt", tmp_path / "two")
    assert written(tmp_path / "two") == {"a.png", "b.png", RECORD}
    with pytest.raises(DataError, match="no image or video fits this pattern") as refused:
        domainbridge.predict(model, [tmp_path / "x/*.bmp", tmp_path / "x/notes.txt"], tmp_path / "three")
    assert "names no file that exists" in str(refused.value)


def test_resume_leaves_out_what_is_written(model: Predictor, tmp_path: Path) -> None:
    for name in "abcd":
        paint(tmp_path / f"in/{name}.png", seed=ord(name))
    domainbridge.predict(model, tmp_path / "in", tmp_path / "out", shares=True)
    times = {name: (tmp_path / f"out/{name}.png").stat().st_mtime_ns for name in "abcd"}
    (tmp_path / "out/b.png").unlink()
    paint(tmp_path / "in/c.png", seed=99)
    told: list[str] = []
    steps: list[tuple[float, int]] = []
    count = domainbridge.predict(
        *(model, tmp_path / "in", tmp_path / "out"),
        shares=True,
        resume=True,
        report=told.append,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert count == 2
    assert steps[0] == (0, 2)
    assert steps[-1] == (2, 2)
    assert any("2 of 4 inputs have their results already" in line for line in told)
    later = {name: (tmp_path / f"out/{name}.png").stat().st_mtime_ns for name in "abcd"}
    assert [name for name in "abcd" if later[name] == times[name]] == ["a", "d"]
    with (tmp_path / "out/class-shares.csv").open() as file:
        assert len(file.readlines()) == 5, "all inputs, those of the first start too"
    assert domainbridge.predict(model, tmp_path / "in", tmp_path / "out", overlay=True, resume=True) == 4


def test_bad_files_of_one_cause_are_one_line(model: Predictor, tmp_path: Path) -> None:
    paint(tmp_path / "in/good.png")
    for name in ("u", "v", "w", "x", "y"):
        (tmp_path / f"in/{name}.png").write_text("text")
    with pytest.raises(SomeFilesError) as told:
        domainbridge.predict(model, tmp_path / "in", tmp_path / "out")
    assert told.value.exit_code == 1
    assert "5 files of" in str(told.value)
    assert all(f"{name}.png" in str(told.value) for name in "uvwxy")


@pytest.mark.parametrize("tiled", [True, False])
def test_a_map_by_windows_is_the_image_at_once(
    model: Predictor, tiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = paint(tmp_path / "plain.png", (160, 208))
    transform = Affine(0.5, 0, 500000, 0, -0.5, 5400000)
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {}
    profile = {"driver": "GTiff", "height": 160, "width": 208, "count": 4, "dtype": "uint16", "nodata": 0, **tiles}
    with rasterio.open(tmp_path / "map.tif", "w", crs="EPSG:32632", transform=transform, **profile) as file:
        deep = np.moveaxis(image.astype(np.uint16) * 257, -1, 0)
        deep[:, :8, :8] = 0
        deep[:, 8:, :] = np.maximum(deep[:, 8:, :], 1)
        file.write(np.concatenate([deep, np.full((1, 160, 208), 1234, np.uint16)]))
    domainbridge.predict(model, tmp_path / "plain.png", tmp_path / "out", confidence=True)
    model.image_rule = predict_rule = type(model.image_rule)(bands=(1, 2, 3), scale=(0, 65535))
    monkeypatch.setattr(windows, "ONE_PIECE", 96 * 96)
    monkeypatch.setattr(windows, "_SIDE", 192)
    monkeypatch.setattr(windows, "CONTEXT", 64)
    try:
        options = {"overlay": True, "confidence": True, "probabilities": True, "shares": True}
        domainbridge.predict(model, tmp_path / "map.tif", tmp_path / "out", polygons=["geojson", "labelme"], **options)
    finally:
        model.image_rule = type(predict_rule)()
    assert {"map.tif", "map_overlay.tif", "map_confidence.tif", "map.geojson", "map.json"} <= written(tmp_path / "out")
    assert not [name for name in written(tmp_path / "out") if name.endswith(".tmp")]
    with rasterio.open(tmp_path / "out/map.tif") as file:
        assert file.crs.to_epsg() == 32632
        assert file.transform == transform
        assert file.nodata == 255
        classes = file.read(1)
    assert (classes[:8, :8] == 255).all()
    whole = read(tmp_path / "out/plain.png")
    assert (classes == whole)[8:].mean() > 0.97, "windows see less around them than the whole image"
    every = np.load(tmp_path / "out/map_probabilities.npz")["probabilities"]
    with rasterio.open(tmp_path / "out/map_confidence.tif") as file:
        assert np.array_equal(every.max(2), file.read(1))
    feature = json.loads((tmp_path / "out/map.geojson").read_text())["features"][0]
    assert all(8.9 < x < 9.1 and 48 < y < 49 for x, y in feature["geometry"]["coordinates"][0])


def test_a_large_png_by_windows(model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "a.png", (90, 130))
    paint(tmp_path / "a.jpg", (90, 130))
    for name in ("a.png", "a.jpg"):
        whole, parts = tmp_path / f"whole-{name}", tmp_path / f"parts-{name}"
        domainbridge.predict(model, tmp_path / name, whole, overlay=True)
        with monkeypatch.context() as patch:
            patch.setattr(predict_job, "LARGE", 64)
            domainbridge.predict(model, tmp_path / name, parts, overlay=True)
        equal = (read(whole / "a.png") == read(parts / "a.png")).mean()
        assert equal == 1 if name == "a.png" else equal > 0.95, "GDAL and OpenCV enlarge a JPEG's colors differently"
        with Image.open(parts / "a.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[:9] == model.palette[:3].flatten().tolist()
        difference = read(whole / "a_overlay.jpg").astype(int) - read(parts / "a_overlay.jpg")
        assert abs(difference).mean() < 4


@pytest.mark.parametrize("tiled", [True, False])
def test_a_large_file_at_several_scales(
    model: Predictor, tiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each scale reads windows of its own from the file; the image is never whole in memory."""
    scaled = Predictor(model.network, model.config, InferenceRule(scales=(0.75, 1.0, 1.5)))
    image = paint(tmp_path / "whole/a.png", (160, 208))
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {}
    (tmp_path / "parts").mkdir()
    profile = {"driver": "GTiff", "height": 160, "width": 208, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    profile |= {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 500000, 0, -0.5, 5400000)}
    with rasterio.open(tmp_path / "parts/a.tif", "w", **profile, **tiles) as file:
        file.write(np.moveaxis(image, -1, 0))
    domainbridge.predict(scaled, tmp_path / "whole", tmp_path / "out/whole")
    for name, value in {"ONE_PIECE": 128 * 128, "_SIDE": 192, "CONTEXT": 64}.items():
        monkeypatch.setattr(windows, name, value)
    monkeypatch.setattr(predict_job, "LARGE", 64)
    told: list[str] = []
    domainbridge.predict(scaled, tmp_path / "parts", tmp_path / "out/parts", report=told.append)
    assert any("read in 6 windows" in line for line in told), told
    equal = read(tmp_path / "out/whole/a.png") == read(tmp_path / "out/parts/a.tif")
    assert equal.mean() > 0.95, "OpenCV and GDAL resize differently, and windows see less around them"


def film(path: Path, frames: int = 9) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5.0, (48, 32))
    for number in range(frames):
        video.write(cv2.resize(np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8), (48, 32)))
    video.release()


def test_a_video_becomes_a_video_and_frames(model: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    film(tmp_path / "in/clip.mp4")
    (tmp_path / "in/cut.mp4").write_bytes((tmp_path / "in/clip.mp4").read_bytes()[:500])
    with pytest.raises(SomeFilesError, match=r"1 images were segmented, 1 not(.|\n)*cut.mp4"):
        domainbridge.predict(model, tmp_path / "in", tmp_path / "out")
    assert written(tmp_path / "out") == {"clip_overlay.mp4", RECORD}
    video = cv2.VideoCapture(str(tmp_path / "out/clip_overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 9
    assert video.get(cv2.CAP_PROP_FPS) == 5
    video.release()
    for every, count in ((1, 9), (4, 3)):
        domainbridge.predict(
            model, tmp_path / "in/clip.mp4", tmp_path / "out", frames=True, every=every, confidence=True, shares=True
        )
        names = {name for name in written(tmp_path / "out") if name.startswith("clip_frames/")}
        assert len(names) == 2 * count, "frames of the call before are gone"
    assert "clip_frames/000009_confidence.png" in names
    with (tmp_path / "out/class-shares.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["frames"] == "3"
    (tmp_path / "out/clip_frames/mine.txt").write_text("foreign")
    with pytest.raises(DataError, match=r"mine\.txt: exists, and predict did not write it"):
        domainbridge.predict(model, tmp_path / "in/clip.mp4", tmp_path / "out", frames=True)
