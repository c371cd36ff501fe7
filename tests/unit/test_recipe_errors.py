"""Recipes as people write them: other forms that are read, and one line in the user's words for each mistake."""

import copy
import datetime
import math
import re
from pathlib import Path
from typing import Any

import pytest

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import load_recipe, parse_recipe
from domainbridge.config.schema import Recipe
from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.label_map import label_map_decoder
from domainbridge.data.label_spaces import label_space
from domainbridge.data.labels import IdLabels
from domainbridge.errors import RecipeError
from tiny_domain import RECIPE, write_domain

HEAD = "name: a\nsources: [{name: s, root: s, images: i, labels: l}]\ntargets: [{name: t, root: t, images: i}]\n"
SPACE = label_space("mine", ["background", "road"])
INTERNALS = re.compile(
    r"function-|\.str\b|\.int\b|LabelSpaceConfig|Config\b|[Ii]nput should|datetime|tuple\b|dict\b|NoneType"
)


def source(**changes: Any) -> dict[str, Any]:
    return {"sources": [{**RECIPE["sources"][0], **changes}]}


def parsed(changes: dict[Any, Any]) -> Recipe:
    return parse_recipe({**copy.deepcopy(RECIPE), **changes})


def problems(changes: dict[Any, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parsed(changes)
    assert not INTERNALS.search(str(caught.value)), caught.value
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def of_text(tmp_path: Path, text: str | bytes) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(str(path))


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ({0: "road", 1: "car"}, ("road", "car")),
        ({"road": 1, "car": 0}, ("car", "road")),
        ({"road": [1, 2, 3], "car": "#0a0B0c"}, ("road", "car")),
    ],
)
def test_classes_may_be_a_mapping(classes: dict[Any, Any], names: tuple[str, ...]) -> None:
    space = parsed({"label_space": {"name": "x", "classes": classes}}).label_space
    assert not isinstance(space, str)
    assert space.classes == names
    if "#0a0B0c" in classes.values():
        assert space.colors == ((1, 2, 3), (10, 11, 12))


def test_colors_may_be_text_or_a_mapping() -> None:
    for colors in (["#010203", "[4, 5, 6]"], {"b": [4, 5, 6], "a": "010203"}):
        space = parsed({"label_space": {"name": "x", "classes": ["a", "b"], "colors": colors}}).label_space
        assert not isinstance(space, str)
        assert space.colors == ((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classes": ["weed"]}, "label_space.classes: a segmentation model needs at least two classes, found ['weed']"),
        ({"classes": {1: "a", 2: "b"}}, "label_space: classes: numbers must be 0 to 1, each once, found 1, 2"),
        ({"classes": "road, car"}, "write [road, car]"),
        ({"classes": ["a", "b", "a"]}, "found twice: a"),
        ({"classes": ["a", "b"], "colors": [[0, 0, 0]]}, "1 colors for 2 classes"),
        ({"classes": ["a", "b"], "colors": {"a": [0, 0, 0]}}, "found ['b'] on one side only"),
        (
            {"classes": ["a", "b"], "colors": [[0, 0], [1, 2, 3]]},
            "label_space.colors.0: expected a list with",
        ),
        ({"classes": [str(number) for number in range(256)]}, "at most 255 elements, found a list of 256"),
    ],
)
def test_a_wrong_label_space_is_one_line(changes: dict[str, Any], expected: str) -> None:
    (line,) = problems({"label_space": {"name": "x", **changes}})
    assert expected in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label_space": 3}, "label_space: expected the name of a label space or {name: mine"),
        ({"label_space": "cityscape19"}, "label_space: 'cityscape19' is unknown; built in are cityscapes19"),
        (source(dataset="gtav5"), "sources.0.dataset: no data set 'gtav5' is known; did you mean gta5?"),
        (
            source(label_map={0: None}),
            "label_map.0: expected a class name, a train id or 'ignore', found nothing",
        ),
        (source(label_map={0: False}), "sources.0.label_map.0: expected a number, or a name in quotes, found false"),
        (source(label_map=["a"]), "sources.0.label_map: expected keys and values"),
        (source(label_map={"box": [3, 4]}), "found [3, 4]; write each id before its class, 3: box"),
        (
            {"label_space": {"name": "x", "classes": ["ground", "ignore", "sky"]}},
            "class names: 'ignore' stands for pixels without a class",
        ),
        (source(exclude_files=[1]), "sources.0.exclude_files.0: expected text, but YAML reads 1 as the number 1"),
        (source(image_pattern="x"), "sources.0.image_pattern: expected {stem} once"),
        (
            source(resize={"width": 60_000, "height": 9}),
            "resize.width: expected a number of at most 20,000",
        ),
        ({"sources": {"name": "x"}}, "sources: expected a list, a '-' before each element"),
        ({"targets": [{"name": "t", "root": "r", "images": "i", "labels": "l"}]}, "in its section validation"),
        ({"name": "my run"}, "found 'my run'; e.g. my-run"),
        ({"name": "n" * 300}, "name: expected a text of at most 100 characters"),
        ({"name": ".."}, "name: expected letters, digits"),
        ({"name": datetime.date(2024, 5, 1)}, "but YAML reads 2024-05-01 as a date; put it in quotes: '2024-05-01'"),
        ({3: 4}, "3: the key 3 is no word"),
        ({"stages": {1: {"steps": 3}}}, "stages.1: the key 1 is no word"),
        ({"training": {"steps": True}}, "training.steps: expected a number, or a name in quotes, found true"),
        ({"training": {"batch_size": 10**9}}, "training.batch_size: expected a number of at most 65,536"),
        ({"training": {"batch_size": 1e30}}, "expected a whole number of at most 1,000,000,000, found 1e+30"),
        ({"training": {"learning_rate": math.inf}}, "training.learning_rate: expected a finite number, found inf"),
        ({"training": {"precision": "bf16"}}, "found 'bf16'; did you mean 'bfloat16'?"),
        (
            {"model": {"head": {"dilations": [1] * 2000}}},
            "model.head.dilations: expected a list with at most 32",
        ),
        ({"model": {"head": {"channels": 10**20}}}, "model.head.channels: expected a number of at most 8,192"),
        ({"prototypes": {"passes": 10**25}}, "prototypes.passes: expected a number of at most 10,000"),
        ({"prototypes": {"max_count": 10**25}}, "prototypes.max_count: expected a number of at most 1,000,000,000"),
        ({"runtime": {"threads": 10**30}}, "runtime.threads: expected a number of at most 4,096"),
        ({"cache": {"folder": "a\0b"}}, "cache.folder: holds the character NUL"),
        ({"seed": 2**70}, "seed: expected a number below 9,223,372,036,854,775,808"),
    ],
)
def test_a_wrong_value_is_one_line(changes: dict[Any, Any], expected: str) -> None:
    (line,) = problems(changes)
    assert expected in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "label_space: {name: x, classes: [no, yes]}", r"classes\.0: .*YAML reads no as false; .* quotes: 'no'"),
        (HEAD + "data_root: ~", None),
        (HEAD + "data_root: 2024-05-01", r"YAML reads 2024-05-01 as a date; put it in quotes: '2024-05-01'"),
        (HEAD + "cache: {folder: 007}", r"YAML reads 007 as the number 7; put it in quotes: '007'"),
        (
            HEAD + "label_space:\n  name: x\n  classes:\n    #804080: road",
            r"line 7: YAML reads #804080",
        ),
        (HEAD + "x: {[0, 0, 0]: road}", r"line 4: .*write the color \[0, 0, 0\] as '#000000'"),
        (HEAD + "training:\n\tsteps: 3", "line 5: a tab"),
        (HEAD + "name: again", "line 4: the key 'name' is written twice"),
        (HEAD + "x: !!python/object:os.system a", "line 4: a tag"),
        (HEAD + "x: !!binary aGFs", "line 4: a tag"),
        (HEAD + "x: [1, 2", "line 4: not YAML"),
        (HEAD + "x: " + "[" * 5000, "line 4: values are nested more than 40 deep"),
        (HEAD + "x: " + '{"a": ' * 5000, "line 4: values are nested more than 40 deep"),
        (HEAD + "x: " + "9" * 5000, "line 4: a number of 5000 digits"),
        (HEAD + "x: 2024-13-45", "month must be in 1..12"),
        (HEAD + "x: &a [*a]", "x: unknown key"),
        (HEAD.encode("latin-1") + b"data_root: \xe4", "line 4: byte 0xe4 is no UTF-8 text; save the file as UTF-8"),
        (b"", "expected keys and values such as 'name: my-run', found an empty file"),
        (b"[a]", r"expected keys and values such as 'name: my-run', found \['a'\]"),
        (b"\0\1\2", r"character U\+0000 cannot stand in YAML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str | bytes, expected: str | None) -> None:
    if expected is None:
        assert of_text(tmp_path, text).data_root is None
        return
    with pytest.raises(RecipeError, match=expected) as caught:
        of_text(tmp_path, text)
    assert not INTERNALS.search(str(caught.value))
    assert max(map(len, str(caught.value).splitlines())) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    text = HEAD + "data_root: Wälder"
    mark = "" if encoding in ("utf-16", "utf-32", "utf-8-sig") else "\ufeff"
    assert of_text(tmp_path, (mark + text).encode(encoding)).data_root == "Wälder"


def test_comments_and_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = HEAD.replace("labels: l", "labels: l, label_map: {010: road, '#note': 0}").replace("'#note': 0", "011: 0")
    recipe = of_text(tmp_path, text + "# #804080: road\ndata_root: a # ffffff\nseed: 3 #ff0000 is red\n")
    assert recipe.sources[0].label_map == {10: "road", 11: 0}
    assert (recipe.data_root, recipe.seed) == ("a", 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["name="], "name: no value after ="),
        (["seed=1", "seed=2"], "seed: is given twice on the command line"),
        (["a..b=1"], "a part of the key is empty"),
        (["label_space.classes=[no, b]"], "YAML reads no as false; put it in quotes: 'no'"),
        (["sources.0.label_map={#000000: a}"], "sources.0.label_map: YAML reads #000000"),
        (["name=#ff0000"], "name: YAML reads # as the begin of a comment"),
        (["name=" + "[" * 5000], "name: values are nested more than 40 deep"),
        (["training.steps=1e30"], "found 1e+30"),
        (["sources.²=x"], "is not a position in a list of 1"),
        (["3=4"], "3: unknown key"),
    ],
)
def test_wrong_words_of_the_command_line(arguments: list[str], expected: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(expected)):
        parse_recipe(copy.deepcopy(RECIPE), arguments)


def test_words_of_the_command_line_may_hold_colons_and_quotes() -> None:
    recipe = parse_recipe(copy.deepcopy(RECIPE), ["sources.0.root=C: a: b", "targets.0.root='1'"])
    assert (recipe.sources[0].root, recipe.targets[0].root) == ("C: a: b", "1")


@pytest.mark.parametrize(
    ("mapping", "ids"),
    [
        ({0: "background", 255: "road"}, {0: 0, 255: 1, 7: 255}),
        ({"background": 0, "road": 255}, {0: 0, 255: 1, 7: 255}),
        ({"1-10": "road", "*": "background", 5: "ignore"}, {0: 0, 1: 1, 5: 255, 10: 1, 11: 0}),
        ({"0xff": "road", "0": 0}, {255: 1, 0: 0}),
    ],
)
def test_label_maps_of_ids(mapping: dict[int | str, int | str], ids: dict[int, int]) -> None:
    decoder = label_map_decoder(mapping, SPACE, "sources.s")
    assert isinstance(decoder, IdLabels)
    assert {value: int(decoder.table[value]) for value in ids} == ids
    assert decoder.means(7) == ("*" in mapping)


@pytest.mark.parametrize(
    "mapping",
    [
        {"#FF0000": "road", "00000A": "background"},
        {"[255,0,0]": "road", "(0, 0, 10)": "background"},
        {"road": "#ff0000", "background": "#00000a"},
    ],
)
def test_label_maps_of_colors(mapping: dict[int | str, int | str]) -> None:
    decoder = label_map_decoder(mapping, SPACE, "sources.s")
    assert isinstance(decoder, ColorLabels)
    assert decoder.colors.tolist() == [10, 0xFF0000]
    assert decoder.train_ids_of_colors.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"background": 0, "road": 0}, "For 'road' of a label file with the id N write N: road"),
        ({"1-10": "road", "5-20": 0}, "ranges 1-10 and 5-20 overlap"),
        ({"1": "road", 1: 0}, "key 1: is given twice, with different classes"),
        ({"#ff0000": "road", 3: 0}, "key 3: expected '#rrggbb', in quotes, as for the other keys; write '#000003'"),
        ({"#ff0000": "road", "*": 0}, "key '*': expected a color"),
        ({"10-1": "road"}, "key '10-1': expected an id from 0 to 65535"),
    ],
)
def test_label_maps_without_meaning(mapping: dict[int | str, int | str], expected: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(expected)):
        label_map_decoder(mapping, SPACE, "sources.s")


def test_home_folders_and_backslashes_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_domain(tmp_path / "source", 2, 1, foggy=False, labeled=True)
    write_domain(tmp_path / "target", 2, 2, foggy=True, labeled=False)
    write_domain(tmp_path / "target-val", 2, 3, foggy=True, labeled=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    for changes in ({"root": "~/source"}, {"root": ".\\source"}, {"labels": "~/source\\labels"}):
        data = open_data(parsed({"data_root": str(tmp_path), **source(**changes)}))
        assert len(data.sources[0]) == 2
    for changes, expected in (
        ({"root": "C:\\data"}, "path of Windows with a drive"),
        ({"images": "no\\such"}, "write folders with / between"),
        ({"root": "~nobody-here/a"}, "no user has this name"),
    ):
        with pytest.raises(ValueError, match=expected):
            open_data(parsed({"data_root": str(tmp_path), **source(**changes)}))
