"""What `data check` says about labels that are not what the recipe takes them for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.errors import DataError, FileError
from domainbridge.tools.check import check_data
from domainbridge.tools.findings import grouped
from domainbridge.tools.survey import Survey, survey_data

LABELS = np.repeat(np.arange(2, dtype=np.uint8), 24).reshape(6, 8)


def photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)).save(path)


class Data:
    """A source of three images with labels, and a target of two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for number in range(3):
            photo(folder / f"s/i/{number}.png", number)
            self.label(number, LABELS)
        for number in range(2):
            photo(folder / f"t/{number}.png", 10 + number)
        self.source: dict[str, Any] = {"name": "s", "root": "s", "images": "i", "labels": "l"}
        self.target: dict[str, Any] = {"name": "t", "root": "t", "images": "."}

    def label(self, number: int, values: np.ndarray, suffix: str = "png") -> Path:
        path = self.folder / f"s/l/{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f"{number}.*"):
            other.unlink()
        Image.fromarray(values).save(path)
        return path

    def recipe(self) -> Any:
        space = {"name": "mine", "classes": ["ground", "crop"]}
        tree = {"name": "x", "data_root": str(self.folder), "label_space": space, "crop": {"width": 4, "height": 4}}
        return parse_recipe({**tree, "sources": [self.source], "targets": [self.target]})

    def survey(self) -> Survey:
        recipe = self.recipe()
        return survey_data(recipe, open_data(recipe), lambda text: None)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def test_data_in_order_has_nothing_to_say(data: Data) -> None:
    survey = data.survey()
    assert (survey.all_errors, survey.all_warnings, survey.all_notes) == ([], [], [])


@pytest.mark.parametrize("where", ["source", "validation"])
def test_a_binary_mask_is_refused_with_the_map_to_write(where: str, data: Data) -> None:
    for number in range(3):
        data.label(number, LABELS * 255)
    if where == "validation":
        data.target["validation"] = data.source | {"name": "v"}
        del data.target["validation"]["name"]
        data.source["label_map"] = {0: "ground", 255: "crop"}
    recipe = data.recipe()
    with pytest.raises(DataError, match=r"only one class has pixels; values found: .*a binary mask\? label_map: "):
        check_data(recipe, open_data(recipe), lambda text: None)
    data.source["label_map"] = {0: "ground", 255: "crop"}
    data.target.pop("validation", None)
    assert data.survey().all_errors == []


def test_one_class_alone_cannot_train(data: Data) -> None:
    for number in range(3):
        data.label(number, LABELS * 0)
    assert "only one class has pixels; values found: 0 100%" in data.survey().all_errors[0]


def test_unlisted_values_are_named_with_their_share(data: Data) -> None:
    labels = LABELS.copy()
    labels[0, :4] = 7
    data.label(0, labels)
    data.source["label_map"] = {0: "ground", 1: "crop"}
    (note,) = data.survey().all_notes
    assert "2.8% of the label pixels have values that label_map does not list" in note
    assert "7 2.8% (nearest listed: 1)" in note
    labels[:2] = 7
    data.label(0, labels)
    assert "7 11.1%" in data.survey().all_warnings[0]


def test_a_mistyped_color_is_named_with_the_listed_one(data: Data) -> None:
    colors = np.array([[0, 0, 0], [0, 200, 0]], np.uint8)[LABELS]
    for number in range(3):
        data.label(number, colors)
    data.source["label_map"] = {"#000000": "ground", "#00c801": "crop"}
    survey = data.survey()
    assert any("'#00c800' 50.0% (nearest listed: '#00c801')" in text for text in survey.all_warnings)


def test_jpeg_labels_are_told_and_mended(data: Data) -> None:
    for number in range(3):
        data.label(number, np.kron(LABELS, np.ones((9, 9), np.uint8)) * 200, "jpg")
        Image.new("RGB", (72, 54), (number, 90, 200)).save(data.folder / f"s/i/{number}.png")
    data.source["label_map"] = {0: "ground", 200: "crop"}
    (warning,) = [text for text in data.survey().all_warnings if "does not list" in text]
    assert "3 labels are JPEG files" in warning
    assert "label_nearest: true" in warning
    data.source["labels"] = {"path": "l", "nearest": True}
    survey = data.survey()
    assert survey.all_warnings == []
    assert survey.domains[0].ignored == 0


def test_palettes_that_differ_are_told(data: Data) -> None:
    for number, palette in enumerate(([0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 255, 0])):
        image = Image.fromarray(LABELS)
        image.putpalette(palette + [0] * 762)
        image.save(data.folder / f"s/l/{number}.png")
    (warning,) = data.survey().all_warnings
    assert "value 1 is #ff0000 in" in warning
    assert "#00ff00 in" in warning


def test_labels_among_target_images_are_pointed_out(data: Data) -> None:
    Image.fromarray(LABELS).save(data.folder / "t/0_mask.png")
    (warning,) = data.survey().all_warnings
    assert "1 of 3 images look like labels" in warning
    assert "0_mask.png" in warning


def test_labels_of_half_the_size(data: Data) -> None:
    for number in range(3):
        data.label(number, LABELS[::2, ::2])
    (error,) = data.survey().all_errors
    assert "3 files of" in error
    assert "set label_resize: true" in error
    data.source["label_resize"] = True
    assert data.survey().all_errors == []


def test_further_pages_and_turned_images_are_told(data: Data) -> None:
    pages = [Image.fromarray(LABELS + number) for number in range(3)]
    (data.folder / "s/l/0.png").unlink()
    pages[0].save(data.folder / "s/l/0.tif", save_all=True, append_images=pages[1:])
    exif = Image.Exif()
    exif[274] = 3
    Image.open(data.folder / "s/i/1.png").save(data.folder / "s/i/1.png", exif=exif)
    survey = data.survey()
    assert "1 samples have files of several pages" in survey.all_notes[0]
    assert "1 images are turned as their EXIF data say" in survey.all_warnings[0]
    data.source["exif"] = "raw"
    assert data.survey().all_warnings == []


def test_ids_that_begin_with_one(data: Data) -> None:
    data.recipe()
    for number in range(3):
        data.label(number, LABELS * 254 + 1)
    assert any("if the ids of the files begin with 1" in text for text in data.survey().all_warnings)


@pytest.mark.parametrize("complete", [False, True])
def test_a_class_that_only_another_source_annotates_is_not_background(complete: bool, data: Data) -> None:
    space = {"name": "mine", "classes": ["background", "crop", "weed"]}
    first = data.source | {"name": "a", "label_map": {0: "background", 1: "crop"}, "complete_background": complete}
    second = data.source | {"name": "b", "label_map": {0: "background", 1: "weed"}, "complete_background": True}
    tree = {"name": "x", "data_root": str(data.folder), "label_space": space, "crop": {"width": 4, "height": 4}}
    recipe = parse_recipe({**tree, "sources": [first, second], "targets": [data.target]})
    files = open_data(recipe)
    label = files.sources[0][0].label
    assert label is not None
    assert set(np.unique(label)) == ({0, 1} if complete else {1, 255})
    notes = survey_data(recipe, files, lambda text: None).all_notes
    assert any("weed. The background here may show them" in text for text in notes) != complete


def test_files_with_one_fault_are_one_line() -> None:
    errors: list[DataError] = [FileError(Path(f"d/{n}.png"), f"value {n}", "values", {str(n): 1}) for n in range(5)]
    errors += [FileError(Path("d/x.png"), "other"), DataError("general")]
    lines = grouped(errors)
    assert lines[0] == "general"
    assert lines[1].startswith("5 files of d (0.png, 1.png, 2.png and 2 more): values: 0, 1, 2, 3, 4")
    assert lines[2] == "d/x.png: other"


def scored(data: Data, role: str, first: int, seeds: list[int]) -> dict[str, Any]:
    """A section over new images; equal seeds make equal images."""
    for number, seed in enumerate(seeds, first):
        photo(data.folder / f"{role}/i/{number}.png", seed)
        (data.folder / f"{role}/l").mkdir(parents=True, exist_ok=True)
        Image.fromarray(LABELS).save(data.folder / f"{role}/l/{number}.png")
    return {"root": role, "images": "i", "labels": "l"}


def test_test_images_are_looked_at_like_validation_images(data: Data) -> None:
    data.target["validation"] = scored(data, "v", 0, [20, 21])
    data.target["test"] = scored(data, "e", 0, [30, 31])
    survey = data.survey()
    assert [domain.name for domain in survey.domains] == [
        "sources.s",
        "targets.t",
        "targets.t.validation",
        "targets.t.test",
    ]
    assert (survey.all_errors, survey.all_warnings) == ([], [])

    scored(data, "e", 0, [0, 20, 10])  # an image of the source, one of the validation, one of the target
    (training, validation) = data.survey().all_warnings
    assert "targets.t.test: 2 images are training images of sources.s too, e.g. " in training
    assert "targets.t.test: 1 images are validation images of targets.t.validation too, e.g. " in validation

    (data.folder / "e/l/2.png").unlink()
    with pytest.raises(DataError, match=r"targets\.t\.test: "):
        open_data(data.recipe())


def test_a_label_map_that_does_not_fit_the_test_images_is_refused(data: Data) -> None:
    data.target["validation"] = scored(data, "v", 0, [20, 21])
    data.target["test"] = scored(data, "e", 0, [30, 31]) | {"label_map": {7: "ground"}}
    with pytest.raises(DataError, match=r"targets\.t\.test: no pixel of any label has a class; values found: "):
        check_data(data.recipe(), open_data(data.recipe()), lambda text: None)


def test_labels_of_the_oracle_are_looked_at_where_the_oracle_is_wanted(data: Data) -> None:
    data.target["oracle"] = {"labels": "../masks"}
    (data.folder / "masks").mkdir()
    for number in range(2):
        Image.fromarray(LABELS * 9).save(data.folder / f"masks/{number}.png")
    assert data.survey().all_errors == []
    recipe = parse_recipe({**data.recipe().model_dump(mode="json", exclude_unset=True), "oracle": True})
    survey = survey_data(recipe, open_data(recipe), lambda text: None)
    assert any("masks (0.png, 1.png): label values out" in error for error in survey.all_errors), survey.all_errors


def test_held_out_images_are_a_domain(data: Data) -> None:
    data.target["validation"] = scored(data, "v", 0, [20, 21, 22, 23])
    recipe = parse_recipe(
        {**data.recipe().model_dump(mode="json", exclude_unset=True), "evaluation": {"hold_out": 0.25}}
    )
    survey = survey_data(recipe, open_data(recipe), lambda text: None)
    images = {domain.name: domain.images for domain in survey.domains}
    assert images["targets.t.validation"] == 3
    assert images["targets.t.validation (held out)"] == 1
