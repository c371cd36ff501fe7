"""Decoding, label spaces, listings, fingerprints, transforms, statistics, batches."""

import gc
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from domainbridge.config.sections import CropConfig
from domainbridge.data.batches import CropRule, PairedCrops, TargetCrops
from domainbridge.data.dataset import ConcatDataset, FileDataset
from domainbridge.data.decode import image_size, read_image
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.index_image import read_index_image
from domainbridge.data.label_map import label_map_decoder
from domainbridge.data.label_spaces import BUILT_IN, label_space, space_table, table_by_names
from domainbridge.data.labels import IdLabels
from domainbridge.data.loaders import batches
from domainbridge.data.sampling import Mixture, epoch_index
from domainbridge.data.statistics import RareClasses, class_counts, rare_class_probabilities
from domainbridge.data.threads import in_threads
from domainbridge.data.transforms import (
    ResizeRule,
    choose_crop,
    distort,
    draw_distortion,
    draw_offset,
    pad_to,
    resize_image,
    resize_label,
)
from domainbridge.errors import DataError, RecipeError

SPACE = label_space("abc", ["a", "b", "c"])


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def strict() -> IdLabels:
    return IdLabels.in_space(space_table(SPACE, SPACE), SPACE)


class TestDecoding:
    def test_a_value_outside_the_space_is_named_with_its_share(self, tmp_path: Path) -> None:
        label = np.zeros((10, 10), np.uint8)
        label[0, :5] = 7
        path = save(tmp_path / "x.png", label)
        with pytest.raises(DataError, match=r"x\.png: label value outside abc: 7 \(5\.00% .*allowed are 0\.\.2, 255"):
            strict().read(path)

    def test_a_painted_label_is_refused_as_an_index_image(self, tmp_path: Path) -> None:
        colors = np.zeros((4, 4, 3), np.uint8)
        colors[0, :, 1] = 200
        path = save(tmp_path / "x.png", colors)
        with pytest.raises(DataError, match="found mode RGB with 2 colors: '#000000' 75%, '#00c800' 25%"):
            read_index_image(path)

    def test_equal_channels_are_one_channel(self, tmp_path: Path) -> None:
        ids = np.random.default_rng(0).integers(0, 3, (5, 6), np.uint8)
        assert (read_index_image(save(tmp_path / "x.png", np.repeat(ids[..., None], 3, 2))) == ids).all()
        opaque = np.concatenate([np.repeat(ids[..., None], 3, 2), np.full((5, 6, 1), 255, np.uint8)], 2)
        assert (read_index_image(save(tmp_path / "a.png", opaque)) == ids).all()

    def test_palette_images_keep_their_indices(self, tmp_path: Path) -> None:
        label = np.array([[0, 1], [2, 255]], np.uint8)
        image = Image.fromarray(label)
        image.putpalette([9] * 768)
        image.save(tmp_path / "p.png")
        assert (read_index_image(tmp_path / "p.png") == label).all()

    @pytest.mark.parametrize("kind", ["png", "jpg"])
    def test_truncated_files(self, kind: str, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        path = save(tmp_path / f"x.{kind}", generator.integers(0, 255, (64, 64, 3), np.uint8))
        path.write_bytes(path.read_bytes()[:-800])
        with pytest.raises(DataError, match=r"x\.\w+: unreadable or truncated"):
            read_image(path)

    @pytest.mark.parametrize("damage", ["one byte", "cut off"])
    @pytest.mark.parametrize(("shape", "read"), [((64, 64, 3), read_image), ((64, 64), read_index_image)])
    def test_a_damaged_png_is_refused(
        self, shape: tuple[int, ...], read: Callable[[Path], object], damage: str, tmp_path: Path
    ) -> None:
        path = save(tmp_path / "x.png", np.random.default_rng(0).integers(0, 255, shape, np.uint8))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content if damage == "one byte" else path.read_bytes()[:-800])
        with pytest.raises(DataError, match=r"x\.png: unreadable or truncated"):
            read(path)

    def test_a_photo_on_its_side_has_one_size(self, tmp_path: Path) -> None:
        """The header's and the decoded one agree."""
        sideways = Image.Exif()
        sideways[0x0112] = 6
        Image.new("RGB", (60, 40)).save(tmp_path / "photo.jpg", exif=sideways)
        assert read_image(tmp_path / "photo.jpg").shape == (60, 40, 3)
        assert image_size(tmp_path / "photo.jpg") == (60, 40)

    def test_a_gray_png_keeps_its_values_and_its_side_up(self, tmp_path: Path) -> None:
        label = np.random.default_rng(0).integers(0, 255, (6, 9), np.uint8)
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(label).save(tmp_path / "x.png", exif=turned)
        assert (read_index_image(tmp_path / "x.png") == label).all()

    @pytest.mark.parametrize("kind", ["jpg", "png", "turned.jpg", "gray.jpg", "cmyk.jpg", "alpha.png", "palette.png"])
    def test_every_kind_reads_as_pillow_reads_it(self, kind: str, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        image = Image.fromarray(generator.integers(0, 255, (8, 12, 3), np.uint8).repeat(4, 0).repeat(4, 1))
        mode = {"gray.jpg": "L", "cmyk.jpg": "CMYK", "alpha.png": "RGBA", "palette.png": "P"}.get(kind, "RGB")
        path = tmp_path / f"x.{kind}"
        turned = Image.Exif()
        turned[0x0112] = 6  # the camera was held upright
        options = {"exif": turned} if kind == "turned.jpg" else {}
        image.convert(mode).save(path, **options)
        with Image.open(path) as original:
            expected = np.asarray(ImageOps.exif_transpose(original).convert("RGB"))
        assert (read_image(path) == expected).all()
        assert expected.shape == ((48, 32, 3) if kind == "turned.jpg" else (32, 48, 3))

    def test_deep_images_are_refused_instead_of_saturated(self, tmp_path: Path) -> None:
        save(tmp_path / "deep.png", np.full((4, 4), 30000, np.uint16))
        with pytest.raises(DataError, match=r"1 band of uint16; values 30000 to 30000; .*scale: \[0, 32767\]"):
            read_image(tmp_path / "deep.png")

    def test_deep_labels_keep_their_values(self, tmp_path: Path) -> None:
        path = save(tmp_path / "deep.png", np.array([[300, 0], [65535, 7]], np.uint16))
        decoder = label_map_decoder({300: "b", 0: "a", 65535: "c"}, SPACE, "here")
        assert decoder.read(path).tolist() == [[1, 0], [2, 255]]
        with pytest.raises(DataError, match=r"label value outside abc: 7 .*300 .*65535"):
            strict().read(path)

    def test_binary_masks(self, tmp_path: Path) -> None:
        path = save(tmp_path / "mask.png", np.array([[0, 255]], np.uint8))
        decoder = label_map_decoder({0: "a", 255: "b"}, SPACE, "here")
        assert decoder.read(path).tolist() == [[0, 1]]
        Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "bits.png")
        assert decoder.read(tmp_path / "bits.png").tolist() == [[0, 1]]

    def test_missing_and_foreign_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            read_image(tmp_path / "none.png")
        (tmp_path / "text.png").write_text("hello")
        with pytest.raises(DataError, match="unreadable"):
            read_image(tmp_path / "text.png")

    def test_label_maps_by_id_and_by_color(self, tmp_path: Path) -> None:
        ids = save(tmp_path / "ids.png", np.array([[10, 20], [30, 99]], np.uint8))
        decoder = label_map_decoder({10: "a", "20": 1, 30: "ignore"}, SPACE, "here")
        assert decoder.read(ids).tolist() == [[0, 1], [255, 255]]
        colors = np.array([[[255, 0, 0], [0, 0, 255]], [[1, 2, 3], [0, 255, 0]]], np.uint8)
        painted = save(tmp_path / "painted.png", colors)
        by_color = label_map_decoder({"#ff0000": "a", "#00ff00": "b", "#0000FF": 2}, SPACE, "here")
        assert by_color.read(painted).tolist() == [[0, 2], [255, 1]]

    def test_a_wrong_label_map_lists_all_its_problems(self) -> None:
        with pytest.raises(RecipeError, match=r"key 70000.*value 'd' of 1.*key -4"):
            label_map_decoder({70000: "a", 1: "d", -4: "b"}, SPACE, "here")

    @given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=30))
    def test_allowed_values_survive(self, values: list[int]) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = save(Path(folder) / "x.png", np.array([values], np.uint8))
            assert strict().read(path).tolist() == [values]


class TestSpaces:
    def test_coarser_spaces_agree_with_their_names(self) -> None:
        city, camvid, idd = (BUILT_IN[name] for name in ("cityscapes19", "camvid11", "idd7"))
        pairs = {"road": "road", "truck": "car", "vegetation": "tree", "rider": "bicyclist", "wall": "building"}
        for fine, coarse in pairs.items():
            assert space_table(city, camvid)[city.index(fine)] == camvid.index(coarse)
        assert space_table(city, idd)[city.index("sky")] == idd.index("sky")
        assert (space_table(city, idd)[19:] == 255).all()

    def test_no_map_is_an_error(self) -> None:
        with pytest.raises(RecipeError, match="no map is known"):
            space_table(BUILT_IN["camvid11"], BUILT_IN["cityscapes19"])

    def test_maps_by_names(self) -> None:
        coarse = label_space("two", ["x", "y"])
        assert table_by_names({"a": "x", "b": "ignore", "c": "y"}, SPACE, coarse)[:3].tolist() == [0, 255, 1]
        with pytest.raises(RecipeError, match="has no class 'd'"):
            table_by_names({"d": "x"}, SPACE, coarse)

    def test_made_palettes_differ(self) -> None:
        assert len(set(label_space("many", [str(i) for i in range(30)]).colors)) == 30


class TestListing:
    def test_split_files_and_labels(self, tmp_path: Path) -> None:
        for stem in ("m/1", "m/2", "t/1"):
            save(tmp_path / f"i/{stem}.jpg", np.zeros((2, 2, 3), np.uint8))
            save(tmp_path / f"l/{stem}.png", np.zeros((2, 2), np.uint8))
        (tmp_path / "list.txt").write_text("t/1\n\nm/1\n")
        listing = list_folder(tmp_path / "i", tmp_path / "l", FolderRule(tmp_path / "list.txt"))
        assert listing.images == (tmp_path / "i/t/1.jpg", tmp_path / "i/m/1.jpg")
        assert listing.labels == (tmp_path / "l/t/1.png", tmp_path / "l/m/1.png")
        assert not listing.problems + listing.notes

    def test_missing_labels_are_counted_and_named(self, tmp_path: Path) -> None:
        for stem in ("1", "2", "3"):
            save(tmp_path / f"i/{stem}.png", np.zeros((2, 2, 3), np.uint8))
        save(tmp_path / "l/2.png", np.zeros((2, 2), np.uint8))
        listing = list_folder(tmp_path / "i", tmp_path / "l", FolderRule())
        with pytest.raises(DataError, match=r"x: images without label: 2 of 3 have no file below .*: 1, 3"):
            listing.checked("x")
        assert listing.images == (tmp_path / "i/2.png",)

    def test_labels_without_image_are_noted(self, tmp_path: Path) -> None:
        save(tmp_path / "i/1.png", np.zeros((2, 2, 3), np.uint8))
        for stem in ("1", "2"):
            save(tmp_path / f"l/{stem}.png", np.zeros((2, 2), np.uint8))
        listing = list_folder(tmp_path / "i", tmp_path / "l", FolderRule()).checked("x")
        assert "labels without image: 1 of 2" in listing.notes[0]

    def test_patterns_in_one_folder(self, tmp_path: Path) -> None:
        for stem in ("day/a", "day/b"):
            save(tmp_path / f"{stem}.jpg", np.zeros((2, 2, 3), np.uint8))
            save(tmp_path / f"{stem}_mask.png", np.zeros((2, 2), np.uint8))
        rule = FolderRule(image_pattern="{stem}.jpg", label_pattern="{stem}_mask.png")
        listing = list_folder(tmp_path, tmp_path, rule).checked("x")
        assert [path.name for path in listing.images] == ["a.jpg", "b.jpg"]
        assert listing.labels == (tmp_path / "day/a_mask.png", tmp_path / "day/b_mask.png")
        none = list_folder(tmp_path, None, FolderRule(image_pattern="{stem}_rgb"))
        assert "none of the 4 images below" in none.problems[0]

    def test_exclude(self, tmp_path: Path) -> None:
        for stem in ("1", "2"):
            save(tmp_path / f"{stem}.png", np.zeros((2, 2, 3), np.uint8))
        assert list_folder(tmp_path, None, FolderRule(exclude_files=("1",))).images == (tmp_path / "2.png",)
        assert "exclude_files names images" in list_folder(tmp_path, None, FolderRule(exclude_files=("3",))).problems[0]

    def test_folders_that_do_not_work(self, tmp_path: Path) -> None:
        assert "no such folder" in list_folder(tmp_path / "none", None, FolderRule()).problems[0]
        assert "no image" in list_folder(tmp_path, None, FolderRule()).problems[0]
        save(tmp_path / "1.png", np.zeros((2, 2, 3), np.uint8))
        save(tmp_path / "1.jpg", np.zeros((2, 2, 3), np.uint8))
        listing = list_folder(tmp_path, None, FolderRule())
        assert (len(listing.images), listing.problems) == (2, ())
        assert "same stem" in listing.notes[0]
        assert "same stem" in list_folder(tmp_path, tmp_path / "labels", FolderRule()).problems[-1]

    def test_bad_split_files(self, tmp_path: Path) -> None:
        save(tmp_path / "i/1.png", np.zeros((2, 2, 3), np.uint8))
        for text, message in (("\n", "lists nothing"), ("7\n", "1 of 1 have no file")):
            (tmp_path / "list.txt").write_text(text)
            listing = list_folder(tmp_path / "i", None, FolderRule(tmp_path / "list.txt"))
            assert message in listing.problems[0]
        (tmp_path / "list.txt").write_text("1\n1\n")
        listing = list_folder(tmp_path / "i", None, FolderRule(tmp_path / "list.txt"))
        assert len(listing.images) == 1
        assert "lists 1 more than once" in listing.notes[0]

    def test_a_link_to_its_own_folder_adds_no_image(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", np.zeros((4, 4, 3), np.uint8))
        save(tmp_path / "elsewhere/b.png", np.zeros((4, 4, 3), np.uint8))
        (tmp_path / "images/again").symlink_to(tmp_path / "images")
        (tmp_path / "images/more").symlink_to(tmp_path / "elsewhere")
        assert len(list_folder(tmp_path / "images", None, FolderRule()).images) == 2

    def test_split_files_of_other_editors(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", np.zeros((4, 4, 3), np.uint8))
        split = tmp_path / "split.txt"
        split.write_bytes(b"\xef\xbb\xbfa\r\n")
        assert len(list_folder(tmp_path / "images", None, FolderRule(split)).images) == 1

    @pytest.mark.parametrize(
        "content",
        [
            b"a.png\nday 1/b.png\n",
            b"./a\n./day 1/b\n",
            "a\r\nday 1\\b\r\n".encode("utf-16"),
            b"# chosen by hand\na\n\nday 1/b  # the second\n",
            b"image,label\na.png,a_mask.png\nday 1/b.png,day 1/b_mask.png\n",
            b'"a.png";"x"\n"day 1/b.png";"y"\n',
            b"images/a.png\nimages/day 1/b.png\n",
            b"/home/me/data/images/a.png\n/home/me/data/images/day 1/b.png\n",
            b"a 1\nday 1/b\t-1\n",
            b"/images/a.png\t/labels/a.png\n/images/day 1/b.png\t/labels/day 1/b.png\n",
            b"a.jpg\nday 1/b.jpg\n",
        ],
    )
    def test_forms_of_split_files(self, content: bytes, tmp_path: Path) -> None:
        for name in ("a", "day 1/b", "c"):
            save(tmp_path / f"images/{name}.png", np.zeros((4, 4, 3), np.uint8))
        (tmp_path / "split.txt").write_bytes(content)
        listing = list_folder(tmp_path / "images", None, FolderRule(tmp_path / "split.txt"))
        assert listing.problems == ()
        assert [path.name for path in listing.images] == ["a.png", "b.png"]

    def test_a_typing_error_in_a_folder_is_no_other_image(self, tmp_path: Path) -> None:
        for name in ("monday/1", "tuesday/1", "1"):
            save(tmp_path / f"images/{name}.png", np.zeros((4, 4, 3), np.uint8))
        (tmp_path / "split.txt").write_text("monday/1\ntuseday/1\n")
        listing = list_folder(tmp_path / "images", None, FolderRule(tmp_path / "split.txt"))
        assert "1 of 2 have no file" in listing.problems[0]
        assert "tuseday/1 (did you mean tuesday/1?)" in listing.problems[0]
        assert [path.parent.name for path in listing.images] == ["monday"]

    def test_sizes_of_image_and_label_must_agree(self, tmp_path: Path) -> None:
        image = save(tmp_path / "i.png", np.zeros((4, 6, 3), np.uint8))
        label = save(tmp_path / "l.png", np.zeros((4, 5), np.uint8))
        with pytest.raises(DataError, match=r"l\.png: 5x4 pixels, but its image .* has 6x4"):
            FileDataset("x", (image,), (label,), strict())[0]

    def test_labels_at_a_share_of_their_size(self, tmp_path: Path) -> None:
        image = save(tmp_path / "i.png", np.zeros((4, 6, 3), np.uint8))
        label = save(tmp_path / "l.png", np.zeros((4, 6), np.uint8))
        files = FileDataset("x", (image,), (label,), strict(), resize_labels=False, label_scale=0.5)
        assert files[0].label.shape == (2, 3)


class TestTransforms:
    @given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 200), st.integers(8, 200))
    def test_resized_images_fit_the_box(self, height: int, width: int, box_width: int, box_height: int) -> None:
        new = ResizeRule(box_width, box_height).size_for(height, width)
        assert max(new) <= max(box_width, box_height)
        assert min(new) <= min(box_width, box_height)
        assert ResizeRule(box_width, box_height, keep_ratio=False).size_for(height, width) == (box_height, box_width)

    @given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
    def test_offsets_stay_inside(self, height: int, width: int, crop: int, seed: int) -> None:
        y, x = draw_offset((height, width), (crop, crop), np.random.default_rng(seed))
        assert 0 <= y <= max(height - crop, 0)
        assert 0 <= x <= max(width - crop, 0)

    def test_a_monotonous_crop_is_redrawn(self) -> None:
        label = np.zeros((10, 20), np.uint8)
        label[:, 15:] = 1
        offsets = iter([(0, 0), (0, 0), (0, 12)])
        assert choose_crop(label, (10, 8), 0.75, 10, lambda: next(offsets)) == (0, 12)
        assert choose_crop(label, (10, 8), 1.0, 10, lambda: (0, 0)) == (0, 0)
        stubborn = choose_crop(label, (10, 8), 0.75, 3, lambda: (0, 0))
        assert stubborn == (0, 0), "after the last try a bad crop is taken"

    def test_a_wanted_class_is_looked_for(self) -> None:
        label = np.zeros((10, 20), np.uint8)
        label[:, 10:] = 1
        label[:, 18:] = 2
        offsets = iter([(0, 5), (0, 12)])
        assert choose_crop(label, (10, 8), 1.0, 10, lambda: next(offsets), wanted=(2, 0.1)) == (0, 12)

    def test_padding_is_at_the_bottom_and_the_right(self) -> None:
        padded = pad_to(np.ones((2, 3), np.uint8), (4, 4), 255)
        assert padded.tolist() == [[1, 1, 1, 255], [1, 1, 1, 255], [255] * 4, [255] * 4]
        image = np.ones((4, 4, 3), np.uint8)
        assert pad_to(image, (2, 2), (1, 2, 3)) is image

    def test_resizing_labels_invents_no_class(self) -> None:
        label = np.array([[0, 9], [9, 255]], np.uint8)
        assert set(resize_label(label, (7, 5)).ravel().tolist()) == {0, 9, 255}
        assert resize_image(np.zeros((2, 2, 3), np.uint8), (2, 2)).shape == (2, 2, 3)

    @given(st.integers(0, 1000))
    def test_distortion_keeps_shape_and_type(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        image = generator.integers(0, 256, (6, 5, 3), np.uint8)
        before = image.copy()
        distorted = distort(image, draw_distortion(generator))
        assert distorted.shape == image.shape
        assert distorted.dtype == np.uint8
        assert (image == before).all()


class TestStatistics:
    def test_counts_leave_ignored_pixels_out(self) -> None:
        counts = class_counts(np.array([[0, 0, 3, 255]], np.uint8))
        assert counts[:4].tolist() == [2, 0, 0, 1]
        assert counts.sum() == 3

    @given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20).filter(any), st.floats(0.005, 2))
    def test_rarer_is_drawn_more_often(self, counts: list[int], temperature: float) -> None:
        classes, probabilities = rare_class_probabilities(np.array(counts), temperature)
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert (np.diff(probabilities) <= 1e-7).all()
        assert set(classes.tolist()) == {i for i, count in enumerate(counts) if count}

    def test_drawn_images_show_the_class(self) -> None:
        counts = np.array([[900, 100, 0], [1000, 0, 0], [990, 0, 10], [999, 0, 1]])
        rare = RareClasses(counts, temperature=1.0, min_share=0.005)
        generator = np.random.default_rng(0)
        drawn = [rare.draw(generator) for _ in range(300)]
        assert {index for train_id, index in drawn if train_id == 2} == {2}
        assert {index for train_id, index in drawn if train_id == 1} == {0}
        assert {train_id for train_id, _ in drawn} == {0, 1, 2}

    def test_whether_any_class_is_shown(self) -> None:
        counts = np.array([[900, 100], [500, 500]])
        assert RareClasses(counts, 1.0, 0.9).shown
        assert not RareClasses(counts, 1.0, 0.91).shown


class TestMixture:
    @given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0, 1), st.integers(0, 5))
    def test_an_epoch_gives_each_domain_its_share(self, sizes: list[int], temperature: float, epoch: int) -> None:
        mixture = Mixture(tuple(sizes), temperature)
        total = sum(sizes)
        drawn = [mixture.index(1, "s", epoch * total + offset) for offset in range(total)]
        domains = np.searchsorted(np.cumsum(sizes), drawn, side="right")
        for domain, share in enumerate(mixture.shares):
            assert (domains == domain).sum() == pytest.approx(share * total, abs=len(sizes))
            assert (domains == domain).any()

    def test_no_sample_twice_before_all_of_its_domain(self) -> None:
        mixture = Mixture((100, 7), 0.0)
        drawn = [mixture.index(0, "s", position) for position in range(107)]
        small = [index for index in drawn if index >= 100]
        large = [index for index in drawn if index < 100]
        assert 53 <= len(small) <= 54
        assert max(small.count(index) for index in range(100, 107)) - min(small.count(i) for i in range(100, 107)) <= 1
        assert len(set(large)) == len(large)

    def test_by_size_is_the_plain_concatenation(self) -> None:
        mixture = Mixture((5, 3), 1.0)
        assert [mixture.index(4, "s", p) for p in range(20)] == [epoch_index(4, "s", p, 8) for p in range(20)]

    def test_random_draws_are_balanced_too(self) -> None:
        generator = np.random.default_rng(0)
        drawn = np.array([Mixture((90, 10), 0.0).draw(generator) for _ in range(2000)])
        assert (drawn >= 90).mean() == pytest.approx(0.5, abs=0.05)
        drawn = np.array([Mixture((90, 10), 1.0).draw(generator) for _ in range(2000)])
        assert (drawn >= 90).mean() == pytest.approx(0.1, abs=0.03)


class TestBatches:
    @pytest.fixture
    def stream(self, generated_data: Path) -> PairedCrops:
        decoder = IdLabels.native_ids(np.arange(256, dtype=np.uint8), "any")
        listed = list_folder(generated_data / "source/images", generated_data / "source/labels", FolderRule())
        source = FileDataset("source", listed.images, listed.labels, decoder)
        target = FileDataset("target", list_folder(generated_data / "target/images", None, FolderRule()).images)
        return PairedCrops(source, target, CropRule((32, 44)), batch_size=3, seed=5, stage="r1-cut")

    def test_a_step_is_a_value(self, stream: PairedCrops) -> None:
        late = stream[7]
        for step in (0, 7):
            again = stream[step]
            assert torch.equal(again.source_image, stream[step].source_image)
        assert torch.equal(late.target_image, stream[7].target_image)
        assert not torch.equal(late.source_image, stream[8].source_image)
        assert late.source_image.shape == (3, 3, 32, 44)
        assert late.source_label.shape == (3, 32, 44)
        assert late.source_image.dtype == torch.uint8

    def test_strong_augmentation_changes_source_images_alone(self, stream: PairedCrops) -> None:
        plain = [stream[step] for step in range(6)]
        stream.augment_source = True
        augmented = [stream[step] for step in range(6)]
        assert any(not torch.equal(a.source_image, b.source_image) for a, b in zip(plain, augmented, strict=True))
        assert torch.equal(augmented[2].source_image, stream[2].source_image)
        for before, after in zip(plain, augmented, strict=True):
            assert torch.equal(before.source_label, after.source_label)
            assert torch.equal(before.target_image, after.target_image)

    def test_workers_give_the_same_batches_in_order(self, stream: PairedCrops) -> None:
        alone = list(batches(stream, range(2, 6), num_workers=0))
        helped = list(batches(stream, range(2, 6), num_workers=2))
        assert all(torch.equal(a.source_label, b.source_label) for a, b in zip(alone, helped, strict=True))

    @given(st.integers(1, 30), st.integers(0, 50))
    @settings(max_examples=30)
    def test_every_sample_comes_once_an_epoch(self, length: int, seed: int) -> None:
        for epoch in (0, 1):
            positions = range(epoch * length, (epoch + 1) * length)
            assert sorted(epoch_index(seed, "s", position, length) for position in positions) == list(range(length))

    def test_small_images_are_padded(self, generated_data: Path) -> None:
        images = list_folder(generated_data / "target/images", None, FolderRule()).images
        rule = CropRule((64, 64), padding=(1, 2, 3))
        crops = TargetCrops(FileDataset("t", images), rule, batch_size=4, passes=1, seed=0, stage="p")
        assert len(crops) == 3
        assert crops[2].shape == (2, 3, 64, 64)
        assert crops[0][0, :, 63, 63].tolist() == [1, 2, 3]

    def test_concatenated_domains(self) -> None:
        class Part:
            def __init__(self, values: str) -> None:
                self.values = values

            def __len__(self) -> int:
                return len(self.values)

            def __getitem__(self, index: int) -> str:
                return self.values[index]

        both = ConcatDataset((Part("ab"), Part("cde")))
        assert [both[i] for i in range(len(both))] == list("abcde")
        assert list(both) == list("abcde")

    def test_the_crop_of_a_recipe_and_of_the_code_have_the_same_defaults(self) -> None:
        config, rule = CropConfig(), CropRule((8, 8))
        assert (rule.cat_max_ratio, rule.max_tries, rule.flip) == (
            config.cat_max_ratio,
            config.max_tries,
            config.flip,
        )


def test_work_in_threads_keeps_its_order_and_its_errors() -> None:
    assert list(in_threads(lambda index: index * index, range(50))) == [index * index for index in range(50)]
    results = in_threads(lambda index: 1 // (index - 3), range(50))
    with pytest.raises(ZeroDivisionError):
        list(results)


@pytest.mark.parametrize(("bytes_each", "at_most"), [(2**20, 20), (200 * 2**20, 3), (2**40, 2)])
def test_few_large_results_wait_at_a_time(bytes_each: int, at_most: int) -> None:
    begun: list[int] = []

    def work(index: int) -> int:
        begun.append(index)
        return index

    for used, result in enumerate(in_threads(work, range(40), lambda _: bytes_each)):
        assert result == used
        assert len(begun) - used <= at_most


class TestFingerprint:
    def files(self, folder: Path, count: int) -> FileDataset:
        folder.mkdir(exist_ok=True)
        for number in range(count):
            (folder / f"{number}.png").write_text("x")
        return FileDataset("here", tuple(folder / f"{number}.png" for number in range(count)))

    def test_names_and_contents_count_and_the_folder_does_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = self.files(tmp_path / "one", 5), self.files(tmp_path / "other", 5)
        assert files_fingerprint(one) == files_fingerprint(other)
        monkeypatch.chdir(tmp_path)
        relative = FileDataset("here", tuple(path.relative_to(tmp_path) for path in one.images))
        assert files_fingerprint(relative) == files_fingerprint(one)
        assert files_fingerprint(replace(one, images=one.images[:4])) != files_fingerprint(one)
        (tmp_path / "other/4.png").write_text("y")
        assert files_fingerprint(replace(other)) != files_fingerprint(one)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        files = self.files(tmp_path / "set", 2)
        files.images[1].unlink()
        with pytest.raises(DataError, match=r"here: .*1\.png cannot be read"):
            files_fingerprint(files)

    def test_no_files(self) -> None:
        assert files_fingerprint(FileDataset("here", ())) == files_fingerprint(FileDataset("there", ()))


class Left:
    """An object in a reference cycle whose end must be in the process of its beginning."""

    def __init__(self, ends: Path) -> None:
        self.cycle, self.ends = self, ends

    def __del__(self) -> None:
        self.ends.write_text(f"{self.ends.read_text()} {os.getpid()}")


class Collecting(torch.utils.data.Dataset[int]):
    """A stream whose items come with a collection."""

    def __getitem__(self, step: int) -> int:
        gc.collect()
        return step


def test_what_a_program_leaves_behind_ends_in_its_own_process(tmp_path: Path) -> None:
    """A session of onnxruntime that ends in a loader process waits for threads that are not there."""
    ends = tmp_path / "ends"
    ends.write_text("")
    gc.disable()
    try:
        Left(ends)
        with closing(batches(Collecting(), range(3), num_workers=1)) as items:
            assert list(items) == [0, 1, 2]
    finally:
        gc.enable()
    assert ends.read_text().split() == [str(os.getpid())]
