"""Segmenting files: names, what is replaced and what never is, images of any size."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import domainbridge
from domainbridge.data.label_spaces import label_space
from domainbridge.data.training_sizes import ImageSizes, TrainingSizes
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import DataError, ModelError
from domainbridge.evaluation.predictor import Predictor
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.tools.own_outputs import RECORD
from domainbridge.tools.predict import predict_files

SPEC = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))


@pytest.fixture(scope="module")
def model() -> Predictor:
    space = label_space("abc", ["a", "b", "c"])
    torch.manual_seed(0)
    return Predictor(build_segmenter(SPEC), ModelConfig(SPEC, space.name, space.classes, space.colors, None))


def paint(path: Path, size: tuple[int, int] = (9, 12), seed: int = 0) -> bytes:
    """An image of noise; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path.read_bytes()


def written(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files} - {RECORD}


class TestForeignFiles:
    def test_are_never_replaced_and_all_are_listed_at_once(self, model: Predictor, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            paint(tmp_path / f"images/{name}.jpg")
        masks = {name: paint(tmp_path / f"masks/{name}", seed=5) for name in ("a.png", "b_overlay.jpg")}
        with pytest.raises(DataError, match="nothing was written") as refused:
            domainbridge.predict(model, tmp_path / "images", tmp_path / "masks", overlay=True)
        assert all(
            f"{tmp_path / 'masks' / name}: exists, and predict did not write it" in str(refused.value) for name in masks
        )
        assert written(tmp_path / "masks") == set(masks)
        assert all((tmp_path / "masks" / name).read_bytes() == content for name, content in masks.items())
        assert domainbridge.predict(model, tmp_path / "images/c.jpg", tmp_path / "masks") == 1

    def test_own_files_are_replaced_until_somebody_changes_them(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "a.jpg")
        domainbridge.predict(model, tmp_path / "a.jpg", tmp_path / "out")
        first = (tmp_path / "out/a.png").read_bytes()
        paint(tmp_path / "a.jpg", (20, 20), seed=1)
        domainbridge.predict(model, tmp_path / "a.jpg", tmp_path / "out")
        assert (tmp_path / "out/a.png").read_bytes() != first
        with Image.open(tmp_path / "out/a.png") as image:
            corrected = np.array(image)
        corrected[3, 3] = 2 - corrected[3, 3]
        Image.fromarray(corrected).save(tmp_path / "out/a.png")
        kept = (tmp_path / "out/a.png").read_bytes()
        with pytest.raises(DataError, match="it was changed since"):
            domainbridge.predict(model, tmp_path / "a.jpg", tmp_path / "out")
        assert (tmp_path / "out/a.png").read_bytes() == kept

    def test_links_and_files_in_the_place_of_folders(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "in/a.jpg")
        paint(tmp_path / "in/deep/b.jpg")
        (tmp_path / "out").mkdir()
        (tmp_path / "precious.txt").write_text("mine")
        (tmp_path / "out/a.png").symlink_to(tmp_path / "precious.txt")
        (tmp_path / "out/deep").write_text("a file")
        with pytest.raises(DataError) as refused:
            domainbridge.predict(model, tmp_path / "in", tmp_path / "out")
        assert "out/a.png: exists" in str(refused.value)
        assert "needs the folder" in str(refused.value)
        assert (tmp_path / "precious.txt").read_text() == "mine"

    def test_a_damaged_record_makes_no_file_our_own(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "a.jpg")
        domainbridge.predict(model, tmp_path / "a.jpg", tmp_path / "out")
        record = tmp_path / "out" / RECORD
        assert json.loads(record.read_text().splitlines()[0])["image"] == str(tmp_path / "a.jpg")
        record.write_bytes(b"\xff" + record.read_bytes()[:30])
        with pytest.raises(DataError, match="predict did not write it"):
            domainbridge.predict(model, tmp_path / "a.jpg", tmp_path / "out")


class TestInputs:
    def test_results_inside_the_folder_of_images_are_no_inputs(self, model: Predictor, tmp_path: Path) -> None:
        for name in ("a.jpg", "deep/b.jpg"):
            paint(tmp_path / name)
        for out in (tmp_path, tmp_path / "masks", tmp_path / "other"):
            for _ in range(2):
                told: list[str] = []
                assert domainbridge.predict(model, tmp_path, out, overlay=True, report=told.append) == 2
        assert written(tmp_path / "masks") == {"a.png", "a_overlay.jpg", "deep/b.png", "deep/b_overlay.jpg"}
        assert written(tmp_path / "masks") == written(tmp_path / "other")
        assert any("12 images below" in line and "an earlier `predict` wrote them" in line for line in told)

    def test_images_with_one_stem_get_distinct_names(self, model: Predictor, tmp_path: Path) -> None:
        for number, name in enumerate(("x.jpg", "x.png", "x_confidence.png", "y.png", "y_png.jpg", "z.png")):
            paint(tmp_path / "in" / name, (8 + number, 8))
        told: list[str] = []
        count = domainbridge.predict(model, tmp_path / "in", tmp_path / "out", confidence=True, report=told.append)
        assert count == 6
        sizes = {"x_jpg": 8, "x_png": 9, "x_confidence_png": 10, "y": 11, "y_png": 12, "z": 13}
        assert written(tmp_path / "out") == {f"{name}{end}.png" for name in sizes for end in ("", "_confidence")}
        for name, height in sizes.items():
            with Image.open(tmp_path / "out" / f"{name}.png") as image:
                assert image.height == height, "the result of this image"
        assert any("distinct names" in line and "x.jpg as x_jpg.png" in line for line in told)

    def test_one_name_in_several_folders(self, model: Predictor, tmp_path: Path) -> None:
        for folder in ("a", "b", "b/c"):
            paint(tmp_path / folder / "x.jpg")
        inputs = [tmp_path / "a", tmp_path / "b", tmp_path / "b/x.jpg"]
        assert domainbridge.predict(model, inputs, tmp_path / "out") == 3, "a file that is named twice is done once"
        assert written(tmp_path / "out") == {"a_x.png", "b_x.png", "c/x.png"}

    def test_a_folder_named_like_a_result(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "in/a.jpg")
        paint(tmp_path / "in/a.png/b.jpg")
        assert domainbridge.predict(model, tmp_path / "in", tmp_path / "out") == 2
        assert written(tmp_path / "out") == {"a_jpg.png", "a.png/b.png"}

    def test_odd_names(self, model: Predictor, tmp_path: Path) -> None:
        names = ("-dash.jpg", "ünï 名前 (1).jpg", "a.b.c.jpg", "quote'name.jpg", "[red]x[/red].png", "n" * 251 + ".jpg")
        for name in names[:-1]:
            paint(tmp_path / "in" / name)
        assert domainbridge.predict(model, tmp_path / "in", tmp_path / "out") == 5
        assert written(tmp_path / "out") == {f"{name[:-4]}.png" for name in names[:-1]}

    def test_a_name_that_is_too_long_does_not_stop_the_rest(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "in" / ("a" * 245 + ".jpg"))
        paint(tmp_path / "in/b.jpg")
        with pytest.raises(DataError, match="1 images were segmented, 1 not"):
            domainbridge.predict(model, tmp_path / "in", tmp_path / "out", confidence=True)
        assert written(tmp_path / "out") == {"b.png", "b_confidence.png"}

    def test_hidden_folders_are_left_out_and_counted(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "in/a.png")
        paint(tmp_path / "in/.ipynb_checkpoints/a-checkpoint.png")
        assert domainbridge.predict(model, tmp_path / "in", tmp_path / "out") == 1
        assert written(tmp_path / "out") == {"a.png"}

    def test_files_of_several_pages_are_counted(self, model: Predictor, tmp_path: Path) -> None:
        paint(tmp_path / "in/one.tif")
        first = Image.open(tmp_path / "in/one.tif")
        first.save(tmp_path / "in/two.webp", save_all=True, append_images=[first.rotate(180)])
        remarks: list[str] = []
        assert predict_files(model, [tmp_path / "in"], tmp_path / "out", report=remarks.append) == 2
        assert remarks == [
            f"note: files of several pages or frames: 1, e.g. {tmp_path / 'in/two.webp'}; the first one is segmented"
        ]

    def test_unreadable_files_are_listed_and_stop_nothing(
        self, model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paint(tmp_path / "in/good.png")
        for name, content in (("empty.jpg", b""), ("text.png", b"text"), ("cut.png", paint(tmp_path / "c.png")[:200])):
            (tmp_path / "in" / name).write_bytes(content)
        with pytest.raises(DataError, match="1 images were segmented, 3 not") as refused:
            domainbridge.predict(model, tmp_path / "in", tmp_path / "out")
        assert all(name in str(refused.value) for name in ("empty.jpg", "text.png", "cut.png"))
        assert written(tmp_path / "out") == {"good.png"}

        def defective(path: Path) -> None:
            raise KeyError("tag 273")

        monkeypatch.setattr(model, "read", defective)
        with pytest.raises(DataError, match=r"cannot be decoded .KeyError"):
            domainbridge.predict(model, tmp_path / "in/good.png", tmp_path / "out")

    def test_an_image_that_does_not_fit_into_memory(
        self, model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paint(tmp_path / "in/a.png", (30, 30))
        paint(tmp_path / "in/b.png")
        segment = model.class_maps

        def short(images: list[np.ndarray], **options: bool) -> object:
            if len(images[0]) == 30:
                raise MemoryError
            return segment(images, **options)

        monkeypatch.setattr(model, "class_maps", short)
        with pytest.raises(DataError, match=r"a.png: does not fit(.|\n)*evaluation.mode=slide"):
            domainbridge.predict(model, tmp_path / "in", tmp_path / "out")
        assert written(tmp_path / "out") == {"b.png"}


class TestScale:
    """Inputs of another scale than the images of training."""

    SIZES = TrainingSizes(
        (16, 16), ImageSizes(9, (20, 20), (20, 20), (20, 20)), ImageSizes(9, (9, 12), (9, 12), (20, 30))
    )

    @pytest.fixture
    def trained(self, model: Predictor) -> Predictor:
        return Predictor(model.network, replace(model.config, training_sizes=self.SIZES))

    def told(self, model: Predictor, images: Path, out: Path) -> list[str]:
        lines: list[str] = []
        domainbridge.predict(model, images, out, report=lines.append)
        return [line for line in lines if "another scale" in line]

    def test_is_said_once_with_the_size_that_matches(self, trained: Predictor, tmp_path: Path) -> None:
        for name, size in (("a", (9, 12)), ("b", (90, 120)), ("c", (120, 90)), ("d", (4, 4)), ("e", (38, 38))):
            paint(tmp_path / f"in/{name}.png", size)
        (line,) = self.told(trained, tmp_path / "in", tmp_path / "out")
        assert line.startswith("note: 3 of 5 inputs have another scale than the images of training: 120x90 pixels")
        assert "12x9 (target) and 20x20 (source) in training, so sides 5.2 times as long" in line
        assert "--resize 12x9 brings every input" in line
        trained.resize = ResizeRule(12, 9)
        assert not self.told(trained, tmp_path / "in", tmp_path / "matching")
        with Image.open(tmp_path / "matching/c.png") as image:
            assert image.size == (90, 120), "at the size of the input"

    def test_is_not_said_where_nothing_differs_or_nothing_is_known(
        self, model: Predictor, trained: Predictor, tmp_path: Path
    ) -> None:
        paint(tmp_path / "in/a.png", (9, 12))
        assert not self.told(trained, tmp_path / "in", tmp_path / "out")
        paint(tmp_path / "in/b.png", (90, 120))
        assert not self.told(model, tmp_path / "in", tmp_path / "unknown")

    def test_random_changes_of_scale_in_training_are_scales_of_training(self) -> None:
        sizes = ImageSizes(1, (10, 10), (10, 10), (10, 10), (0.5, 2.0))
        assert [sizes.factor((side, side)) for side in (1, 5, 20, 40)] == [0.2, 1, 1, 2]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (2, 3000), (3000, 2)])
def test_images_of_any_shape(model: Predictor, size: tuple[int, int], tmp_path: Path) -> None:
    paint(tmp_path / "a.png", size)
    assert domainbridge.predict(model, tmp_path / "a.png", tmp_path / "out", overlay=True, confidence=True) == 1
    for name in ("a.png", "a_overlay.jpg", "a_confidence.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == size[::-1]


def test_a_large_image_goes_through_windows_and_says_so(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "a.png", (130, 70))
    told: list[str] = []
    monkeypatch.setattr("domainbridge.evaluation.windows.ONE_PIECE", 64 * 64)
    monkeypatch.setattr("domainbridge.evaluation.windows._SIDE", 64)
    monkeypatch.setattr("domainbridge.evaluation.windows.CONTEXT", 16)
    domainbridge.predict(model, tmp_path / "a.png", tmp_path / "out", report=told.append)
    assert told == [
        f"{tmp_path / 'a.png'}: 70x130 pixels, in 3 windows of at most 70x66 pixels that overlap by 32 or more"
    ]
    with Image.open(tmp_path / "out/a.png") as image:
        assert image.size == (70, 130)


def test_memory_is_kept_between_images_of_one_size(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[object] = []

    class Recorded:
        def before(self, size: object, *, large: bool) -> None:
            assert not large
            sizes.append(size)

        def pause(self) -> None:
            sizes.append("a file in parts")

    monkeypatch.setattr("domainbridge.evaluation.predictor.FreedMemory", Recorded)
    keeping = Predictor(model.network, model.config)
    keeping.keep_memory()
    keeping.keep_memory()
    for name, size in (("a", (9, 12)), ("b", (9, 12)), ("c", (20, 12))):
        paint(tmp_path / f"in/{name}.png", size)
    for each, out in ((model, "out"), (keeping, "kept")):
        domainbridge.predict(each, tmp_path / "in", tmp_path / out)
    assert sizes == [(9, 12, 3), (9, 12, 3), (20, 12, 3)]
    sizes.clear()
    with monkeypatch.context() as patch:
        for name, value in {"ONE_PIECE": 64 * 64, "_SIDE": 64, "CONTEXT": 16}.items():
            patch.setattr(f"domainbridge.evaluation.windows.{name}", value)
        assert len(list(keeping.parts(np.zeros((130, 100, 3), np.uint8), (130, 100)))) == 6
    assert sizes == ["a file in parts"]
    assert all(
        (tmp_path / "out" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes() for name in ("a.png", "c.png")
    )


def test_kept_memory_is_given_back_before_work_of_another_size() -> None:
    """In a process of its own: the setting holds for the whole process."""
    result = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=False)
    assert result.stdout.split() in (["kept", "smaller", "gone", "kept", "gone", "kept"], ["nowhere"]), result.stderr


KEPT = """
import numpy as np
from domainbridge.runtime.freed_memory import FreedMemory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

memory = FreedMemory()
if not memory.kept:
    raise SystemExit(print("nowhere"))
memory.before("an image")
array = np.ones(50_000_000)
full = resident()
del array
memory.before("an image")
print("kept" if resident() > full - 10e6 else "gone")
memory.before("a larger image")
print("smaller" if resident() < full - 390e6 else "kept")
memory.pause()
array = np.ones(50_000_000)
del array
print("gone" if resident() < full - 390e6 else "kept")
memory.before("an image")
array = np.ones(50_000_000)
del array
print("gone" if resident() < full - 390e6 else "kept")
for work in range(2):
    memory.before("a large image", large=True)
    array = np.ones(50_000_000)
    del array
    print("gone" if resident() < full - 390e6 else "kept")
"""
"""400 MB are freed; only Linux with glibc has both files that are read."""


def test_weights_that_are_not_numbers_are_not_used(model: Predictor, tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    broken = Predictor(build_segmenter(SPEC), model.config)
    torch.nn.init.constant_(broken.network.head.classifier.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite numbers"):
        domainbridge.predict(broken, tmp_path / "a.png", tmp_path / "out")
    assert not written(tmp_path / "out")
