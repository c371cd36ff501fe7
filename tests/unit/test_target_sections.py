"""What the labeled sections of a target take from each other."""

from typing import Any

import pytest

from domainbridge.build.target_sections import labeled_sections
from domainbridge.config.domains import OracleConfig, TargetConfig, ValidationConfig


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
