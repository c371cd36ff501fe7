"""Folders as people have them: what is left out, what is told, and deep or multi-band images."""

import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from domainbridge.build.datasets import list_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.data.bands import ImageRule
from domainbridge.data.decode import image_size, read_image
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.index_image import read_index_image
from domainbridge.data.label_map import label_map_decoder
from domainbridge.data.label_spaces import label_space, space_table
from domainbridge.data.labels import IdLabels
from domainbridge.data.transforms import resize_image, resize_label
from domainbridge.errors import DataError, FileError

SPACE = label_space("abc", ["a", "b", "c"])


def save(path: Path, shape: tuple[int, ...] = (4, 6, 3), value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


class TestWhatIsLeftOut:
    def test_hidden_and_system_files_are_counted(self, tmp_path: Path) -> None:
        for name in (
            "a.jpg",
            ".ipynb_checkpoints/a-checkpoint.jpg",
            "@eaDir/a.jpg/T.jpg",
            "__MACOSX/._a.jpg",
            "._a.jpg",
        ):
            save(tmp_path / name)
        (tmp_path / "Thumbs.db").write_bytes(b"x")
        listing = list_folder(tmp_path, None, FolderRule())
        assert [path.name for path in listing.images] == ["a.jpg"]
        assert listing.notes == (f"images: files left out below {tmp_path}: 5 hidden or of the system",)

    def test_other_types_are_counted_and_named(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg")
        for name in ("b.heic", "c.HEIC", "d.mp4", "e.avif", "notes.txt", "README"):
            (tmp_path / name).write_bytes(b"x")
        (note,) = list_folder(tmp_path, None, FolderRule()).notes
        for text in ("2 .heic", "1 .mp4", "1 .avif", "1 .txt", "1 without suffix"):
            assert text in note

    @pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPG"])
    def test_spellings_of_jpeg(self, name: str, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name, format="JPEG")
        assert len(list_folder(tmp_path, None, FolderRule()).images) == 1

    def test_links_to_nothing_and_pipes_are_problems(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "zero.png").symlink_to("/dev/zero")
        listing = list_folder(tmp_path, None, FolderRule())
        assert len(listing.images) == 1
        assert "1 links to files that do not exist, e.g." in listing.problems[0]
        assert "2 pipes or devices instead of files" in listing.problems[1]

    def test_folders_that_link_to_each_other_end(self, tmp_path: Path) -> None:
        save(tmp_path / "i/one/a.png")
        save(tmp_path / "i/two/b.png")
        for here, there in (("one", "two"), ("two", "one")):
            for number in (1, 2):
                (tmp_path / f"i/{here}/link{number}").symlink_to(tmp_path / f"i/{there}")
        assert len(list_folder(tmp_path / "i", None, FolderRule()).images) == 2


@pytest.mark.parametrize("closed", ["images/night", "images", "labels"])
def test_a_folder_that_cannot_be_opened_is_named_beside_the_rest(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images/a.png", "images/night/b.png", "labels/a.png", "labels/night/b.png", "target/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / name)
    scandir, listdir = os.scandir, os.listdir

    def refuse(path: str) -> None:
        if os.fspath(path) == str(tmp_path / closed):
            raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr("os.scandir", lambda path: refuse(path) or scandir(path))  # the tests may run as root
    monkeypatch.setattr("os.listdir", lambda path: refuse(path) or listdir(path))
    tree = {
        "name": "x",
        "data_root": str(tmp_path),
        "label_space": {"name": "two", "classes": ["no", "yes"]},
        "sources": [{"name": "s", "root": ".", "images": "images", "labels": "labels"}],
        "targets": [{"name": "t", "root": "nowhere", "images": "."}],
    }
    _, problems = list_data(parse_recipe(tree))
    text = "\n".join(problems)
    assert str(tmp_path / closed) in text
    assert "Permission denied" in text
    assert "nowhere" in text


class TestPairs:
    def test_names_are_compared_normalized(self, tmp_path: Path) -> None:
        save(tmp_path / "i" / unicodedata.normalize("NFC", "Müller_é.png"))
        save(tmp_path / "l" / unicodedata.normalize("NFD", "Müller_é.png"), (4, 6))
        listing = list_folder(tmp_path / "i", tmp_path / "l", FolderRule())
        assert (len(listing.images), listing.problems) == (1, ())

    def test_labels_beside_their_images(self, tmp_path: Path) -> None:
        for stem in ("a", "b"):
            save(tmp_path / f"{stem}.jpg")
            save(tmp_path / f"{stem}_mask.png", (4, 6))
        listing = list_folder(tmp_path, tmp_path, FolderRule(label_pattern="{stem}_mask.png"))
        assert (len(listing.images), listing.problems, listing.notes) == (2, (), ())
        (problem,) = list_folder(tmp_path, tmp_path, FolderRule()).problems
        assert "set image_pattern: '{stem}.jpg' and label_pattern: '{stem}_mask.png'" in problem

    def test_labels_with_the_stems_of_their_images(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg")
        save(tmp_path / "a.png", (4, 6))
        (problem,) = list_folder(tmp_path, tmp_path, FolderRule()).problems
        assert "set image_pattern: '{stem}.jpg' and label_pattern: '{stem}.png'" in problem
        assert list_folder(tmp_path, tmp_path, FolderRule(None, "{stem}.jpg", "{stem}.png")).problems == ()

    def test_labels_in_a_folder_below_the_images(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg")
        save(tmp_path / "masks/a.png", (4, 6))
        listing = list_folder(tmp_path, tmp_path / "masks", FolderRule())
        assert (len(listing.images), listing.problems, listing.notes) == (1, (), ())

    def test_two_images_with_one_stem(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg")
        save(tmp_path / "a.jpeg")
        save(tmp_path / "labels/a.png", (4, 6))
        (problem,) = list_folder(tmp_path, tmp_path / "labels", FolderRule()).problems
        assert "set image_pattern: '{stem}.jpeg' or '{stem}.jpg'" in problem


class TestDeepImages:
    values = np.random.default_rng(0).integers(0, 4016, (5, 6, 3), np.uint16)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_color_of_16_bits_needs_a_scale(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"x.{suffix}"
        cv2.imwrite(str(path), self.values[..., ::-1])
        with pytest.raises(FileError, match=r"3 bands of uint16; values \d+ to \d+; .* scale: \[0, 4095\] or percent"):
            read_image(path)
        expected = np.floor(self.values / 4095 * 255 + 0.5)
        assert np.abs(read_image(path, ImageRule(scale=(0, 4095))) - expected).max() <= 1
        stretched = read_image(path, ImageRule(percentiles=(0, 100)))
        assert (stretched.min(), stretched.max()) == (0, 255)

    def test_gray_of_16_bits(self, tmp_path: Path) -> None:
        Image.fromarray(self.values[..., 0]).save(tmp_path / "x.png")
        image = read_image(tmp_path / "x.png", ImageRule(scale=(0, 4095)))
        assert image.shape == (5, 6, 3)
        assert (image[..., 0] == image[..., 2]).all()

    def test_floating_point(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0.0, 0.5, np.nan]], np.float32)).save(tmp_path / "x.tif")
        with pytest.raises(FileError, match=r"1 band of float32; values 0 to 0.5"):
            read_image(tmp_path / "x.tif")
        assert read_image(tmp_path / "x.tif", ImageRule(scale=(0, 1)))[0, :, 0].tolist() == [0, 128, 0]

    @pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
    def test_pixels_without_a_measurement_do_not_count(self, tmp_path: Path) -> None:
        rasterio = pytest.importorskip("rasterio")
        rule, decibels = ImageRule(percentiles=(0, 100)), np.linspace(-25, -5, 30, dtype=np.float32).reshape(5, 6)
        for nodata in (np.nan, -9999, 0, 1e20, None):
            values = np.stack([decibels, decibels[::-1], decibels])
            mark = np.nan if nodata is None else nodata
            values[:2, :2] = mark
            values[2] = mark  # a band without any measurement
            kind = {"driver": "GTiff", "width": 6, "height": 5, "count": 3, "dtype": "float32", "nodata": nodata}
            with rasterio.open(tmp_path / "x.tif", "w", **kind) as file:
                file.write(values)
            image = read_image(tmp_path / "x.tif", rule)
            measured = values[0, 2:]
            expected = (measured - measured.min()) / (measured.max() - measured.min()) * 255
            assert np.abs(image[2:, :, 0] - expected).max() <= 1
            assert not image[:2, :, :2].any(), "black, although 0 is a high value here"
            with pytest.raises(FileError, match=r"values -25 to -5;"):
                read_image(tmp_path / "x.tif")

    @pytest.mark.parametrize(("nodata", "least"), [("0", 1006), ("-9999", 0), ("none", 0)])
    def test_a_mark_of_missing_pixels_is_not_advised_as_black(self, nodata: str, least: int, tmp_path: Path) -> None:
        deep = np.arange(30, dtype=np.uint16).reshape(5, 6) + 1000
        deep[0] = 0
        Image.fromarray(deep).save(tmp_path / "x.tif", tiffinfo={42113: nodata})
        with pytest.raises(FileError, match=rf"values {least} to 1029;"):
            read_image(tmp_path / "x.tif")

    def test_a_file_of_8_bits_among_deep_ones_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="would be almost black"):
            read_image(save(tmp_path / "x.png", value=200), ImageRule(scale=(0, 4095)))

    @pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
    @pytest.mark.parametrize("count", [2, 4, 5, 7])
    def test_other_numbers_of_bands(self, count: int, tmp_path: Path) -> None:
        rasterio = pytest.importorskip("rasterio")
        bands = np.random.default_rng(1).integers(0, 255, (count, 5, 6), np.uint8)
        path = tmp_path / "x.tif"
        with rasterio.open(path, "w", driver="GTiff", width=6, height=5, count=count, dtype="uint8") as file:
            file.write(bands)
        with pytest.raises(FileError, match=rf"{count} bands of uint8; which are red, green and blue"):
            read_image(path)
        assert image_size(path) == (5, 6)
        order = (2, 1, 2)
        assert (
            read_image(path, ImageRule(bands=order)) == bands[[band - 1 for band in order]].transpose(1, 2, 0)
        ).all()
        with pytest.raises(FileError, match=f"bands asks for band {count + 1}"):
            read_image(path, ImageRule(bands=(count + 1,)))

    def test_declared_transparency_is_dropped(self, tmp_path: Path) -> None:
        rgba = np.full((5, 6, 4), 255, np.uint8)
        rgba[..., :3] = np.random.default_rng(2).integers(0, 255, (5, 6, 3), np.uint8)
        for name in ("x.png", "x.tif"):
            Image.fromarray(rgba).save(tmp_path / name)
            assert (read_image(tmp_path / name) == rgba[..., :3]).all()

    def test_a_header_without_data(self, tmp_path: Path) -> None:
        content = save(tmp_path / "x.png").read_bytes()
        size = (10_000).to_bytes(4, "big") * 2
        header = b"IHDR" + size + content[24:29]
        import zlib

        (tmp_path / "x.png").write_bytes(content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:])
        with pytest.raises(FileError, match="the header says 10000x10000 pixels"):
            read_image(tmp_path / "x.png")

    @given(st.integers(1, 8))
    @settings(max_examples=8)
    def test_orientation_of_deep_images_is_that_of_plain_ones(self, orientation: int) -> None:
        import tempfile

        exif = Image.Exif()
        exif[274] = orientation
        values = np.random.default_rng(orientation).integers(0, 255, (3, 5, 3), np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.png"
            Image.fromarray(values).save(path, exif=exif)
            plain, deep = read_image(path), read_image(path, ImageRule(scale=(0, 255)))
            assert (plain == deep).all()
            assert image_size(path) == plain.shape[:2]
            assert (read_image(path, ImageRule(exif="raw")) == values).all()


class TestLabelFiles:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, bool, np.float32])
    def test_numpy_arrays(self, dtype: type, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[0, 1], [1, 0]], dtype))
        assert read_index_image(tmp_path / "x.npy").tolist() == [[0, 1], [1, 0]]

    def test_minus_one_is_no_class(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[-1, 0, 2]], np.int32))
        assert read_index_image(tmp_path / "x.npy").tolist() == [[255, 0, 2]]

    @pytest.mark.parametrize("values", [np.zeros((2, 2, 2), np.uint8), np.array([[0.5]]), np.array([[-2]])])
    def test_other_arrays_are_refused(self, values: np.ndarray, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(FileError, match="expected"):
            read_index_image(tmp_path / "x.npy")

    def test_gif(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / "x.gif")
        decoder = label_map_decoder({0: "a", 255: "b"}, SPACE, "here")
        assert decoder.read(tmp_path / "x.gif").tolist() == [[0, 1], [1, 0]]

    def test_one_bit_is_0_and_1_or_as_the_map_says(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "x.png")
        for decoder in (
            label_map_decoder({0: "a", 1: "b"}, SPACE, "here"),
            label_map_decoder({0: "a", 255: "b"}, SPACE, "here"),
            IdLabels.in_space(space_table(SPACE, SPACE), SPACE),
        ):
            assert decoder.read(tmp_path / "x.png").tolist() == [[0, 1]]

    @given(st.lists(st.integers(0, 255), min_size=1, max_size=30), st.sets(st.integers(0, 255), min_size=2, max_size=3))
    def test_the_nearest_listed_value(self, values: list[int], listed: set[int]) -> None:
        keys = sorted(listed)
        decoder = label_map_decoder(dict(zip(keys, "abc", strict=False)), SPACE, "here").with_nearest()
        array = np.array([values], np.uint8)
        expected = [min(range(len(keys)), key=lambda i: abs(keys[i] - value)) for value in values]
        assert decoder.train_ids(Path("x"), array)[0].tolist() == expected

    def test_the_nearest_listed_color(self, tmp_path: Path) -> None:
        colors = np.array([[[250, 3, 0], [0, 255, 0], [9, 240, 9]]], np.uint8)
        Image.fromarray(colors).save(tmp_path / "x.png")
        decoder = label_map_decoder({"#ff0000": "a", "#00ff00": "b"}, SPACE, "here")
        assert decoder.read(tmp_path / "x.png").tolist() == [[255, 1, 255]]
        assert decoder.with_nearest().read(tmp_path / "x.png").tolist() == [[0, 1, 1]]

    def test_thin_objects_stay_under_their_image(self) -> None:
        label = np.zeros((256, 512), np.uint8)
        for x in range(5, 512, 37):
            label[:, x : x + 6] = 1
        image = np.repeat((label * 255)[..., None], 3, 2)
        small = resize_image(image, (64, 128))[..., 0] > 127
        centered, published = (resize_label(label, (64, 128), published=flag) > 0 for flag in (False, True))
        iou = [float((small & one).sum() / (small | one).sum()) for one in (centered, published)]
        assert iou[0] > 0.8 > iou[1]

    def test_a_truncated_label_is_one_error(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((20, 20), np.uint8))
        content = (tmp_path / "x.npy").read_bytes()
        (tmp_path / "x.npy").write_bytes(content[:-100])
        with pytest.raises(DataError, match=r"x\.npy: unreadable or truncated"):
            read_index_image(tmp_path / "x.npy")
