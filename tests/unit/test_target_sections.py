"""What the labeled sections of a target take from each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from domainbridge.build.batches import paired_crops, rare_classes, training_data
from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.build.target_sections import labeled_sections
from domainbridge.config.domains import OracleConfig, TargetConfig, ValidationConfig
from domainbridge.config.load import dump_recipe
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import Dataset
from domainbridge.errors import RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.run.graph import stage_graph
from domainbridge.types import Rows, Sample


def sections(**keys: Any) -> dict[str, ValidationConfig | OracleConfig]:
    return labeled_sections(TargetConfig(**{"name": "t", "root": "r", "images": "i", **keys}))


VALIDATION = {
    "labels": "l",
    "label_map": {0: "a"},
    "split": "val.txt",
    "exclude_files": ["x"],
    "label_scale": 0.5,
    "resize": {"width": 4, "height": 4},
}


def test_a_target_without_labels_has_no_section() -> None:
    assert sections() == {}


def test_test_is_like_the_validation_but_of_other_files() -> None:
    test = sections(validation=VALIDATION, test={"split": "test.txt"})["test"]
    assert isinstance(test, ValidationConfig)
    assert (test.root, test.images, test.labels, test.label_map, test.label_scale) == ("r", "i", "l", {0: "a"}, 0.5)
    assert (test.split, test.exclude_files) == ("test.txt", ())
    assert test.resize is not None
    assert sections(validation=VALIDATION, test={"root": "s"})["test"].split is None


@pytest.mark.parametrize(
    ("section", "key"), [({"label_space": "camvid11"}, "label_map"), ({"label_map": {1: "b"}}, "label_space")]
)
def test_of_two_ways_to_read_labels_only_the_given_one_counts(section: dict[str, Any], key: str) -> None:
    validation = {"labels": "l", key: "idd7" if key == "label_space" else {0: "a"}}
    test = sections(validation=validation, test=section)["test"]
    assert getattr(test, key) is None
    assert test.labels == "l"


def test_images_are_read_as_the_validation_or_the_target_says() -> None:
    target = {"scale": (0, 10)}
    assert sections(**target, test={"labels": "l"})["test"].scale == (0, 10)
    assert sections(**target, validation={"labels": "l", "scale": (0, 20)}, test={})["test"].scale == (0, 20)
    test = sections(**target, validation={"labels": "l", "scale": (0, 20)}, test={"percentiles": (1, 99)})["test"]
    assert (test.scale, test.percentiles) == (None, (1, 99))


def test_the_oracle_has_the_files_of_the_target() -> None:
    oracle = sections(split="train.txt", exclude_files=["x"], validation=VALIDATION, oracle={"labels": "m"})["oracle"]
    assert (oracle.split, oracle.exclude_files, oracle.labels, oracle.label_map) == ("train.txt", ("x",), "m", None)
    some = sections(split="train.txt", oracle={"labels": "m", "split": "labeled.txt"})["oracle"]
    assert some.split == "labeled.txt"
    unwanted = TargetConfig(name="t", root="r", images="i", oracle=OracleConfig(labels="m"))
    assert labeled_sections(unwanted, oracle=False) == {}


def test_a_known_data_set_has_a_split_of_its_own_for_tests() -> None:
    keys = {"name": "c", "root": "c", "dataset": "cityscapes", "validation": {"split": "val"}}
    assert labeled_sections(TargetConfig(**keys, test={}))["test"].split == "test"
    assert labeled_sections(TargetConfig(**keys, test={"split": "train"}))["test"].split == "train"


class TestFewLabels:
    def recipe(self, tree: dict[str, Any], **few: Any) -> Recipe:
        target = {**tree["targets"][0], "few": few}
        return parse_recipe({**tree, "targets": [target]})

    def test_a_few_labeled_images_are_a_source_with_a_share(self, recipe_tree: dict[str, Any]) -> None:
        recipe = self.recipe(recipe_tree, root="target-val", split="few.txt", share=0.4)
        source = recipe.sources[1]
        assert (source.name, source.root, source.images, source.labels) == ("fog-few", "target-val", "images", "labels")
        assert (source.split, source.share, source.dataset) == ("few.txt", 0.4, "folder")
        assert recipe.targets[0].few is None
        assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe, "a run folder's recipe is the same recipe"

    def test_problems_are_listed(self, recipe_tree: dict[str, Any]) -> None:
        with pytest.raises(RecipeError, match=r"targets\.0\.few\.share: expected"):
            self.recipe(recipe_tree, share=1)
        del recipe_tree["targets"][0]["validation"]
        recipe_tree["sources"][0] |= {"name": "fog-few", "share": 0.8}
        with pytest.raises(RecipeError) as refused:
            self.recipe(recipe_tree, split="few.txt")
        for text in (
            "targets.fog.few.labels: missing",
            "a source has the name fog-few",
            "the shares have the sum 1.05",
        ):
            assert text in str(refused.value)

    def test_stages_without_them_keep_their_hashes(self, recipe_tree: dict[str, Any]) -> None:
        """And with them, every stage that reads the sources is another one."""
        plain, few = parse_recipe(recipe_tree), self.recipe(recipe_tree, root="target-val")
        assert "rare_classes" not in stage_graph(few, open_data(few))[0].values
        hashes = [[node.fingerprint for node in stage_graph(each, open_data(each))] for each in (plain, few)]
        assert all(one != other for one, other in zip(*hashes, strict=True))
        assert "share" not in stage_graph(plain, open_data(plain))[0].values["sources"]["clear"]

    def test_their_share_of_the_crops(self, recipe_tree: dict[str, Any]) -> None:
        recipe = self.recipe(recipe_tree, root="target-val", share=0.25)
        data = open_data(recipe)
        mixture = training_data(recipe, data, data.source, data.target).source_mixture
        assert mixture.sizes == (12, 4)
        assert mixture.shares == pytest.approx([0.75, 0.25])
        drawn = [mixture.index(0, "stage", position) for position in range(16 * 50)]
        assert sum(index >= 12 for index in drawn) / len(drawn) == pytest.approx(0.25)

    def test_their_share_beside_rare_classes(self, recipe_tree: dict[str, Any], tmp_path: Path) -> None:
        """Rare class sampling draws the other rows, from all labeled images."""
        recipe_tree["sampling"] = {"rare_classes": True}
        recipe = self.recipe(recipe_tree, root="target-val", share=0.25)
        data = open_data(recipe)
        rare = rare_classes(recipe, data, tmp_path / "counts.npz")
        shown = Recorded(data.source)
        of_stages = training_data(recipe, data, shown, data.target, rare)
        (stage,) = [spec for spec in stages_of(recipe) if spec.name == "r1-cut"]
        assert isinstance(stage, TrainingStage)
        crops = paired_crops(recipe, stage, 4, of_stages, Rows.whole(4))
        mixture, steps = crops.source_mixture, range(8)
        for step in steps:
            assert crops[step].source_label.shape[0] == 4
        rows = [mixture.index(recipe.seed, stage.stream, position) for position in range(4 * len(steps))]
        assert sum(index >= 12 for index in rows) == len(rows) / 4
        assert [one for one, index in zip(shown.indices, rows, strict=True) if index >= 12] == [
            index for index in rows if index >= 12
        ]
        assert [one for one, index in zip(shown.indices, rows, strict=True) if index < 12] != [
            index for index in rows if index < 12
        ]


class Recorded:
    """Samples, and which were asked for."""

    def __init__(self, samples: Dataset) -> None:
        self.samples, self.indices = samples, list[int]()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.indices.append(index)
        return self.samples[index]
