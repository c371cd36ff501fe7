"""``self_training.teacher_statistics`` per target: the teacher's passes, the names that a batch tells, the refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch

from domainbridge.build.batches import paired_crops, training_data
from domainbridge.build.datasets import open_data
from domainbridge.build.networks import check_network
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.methods.mean_teacher import MeanTeacher, TeacherStatistics
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.run import run_recipe
from domainbridge.run.side_by_side import check_shares, waves
from domainbridge.types import Rows
from tiny_domain import RECIPE
from tiny_network import network


def teacher(statistics: TeacherStatistics) -> MeanTeacher:
    """Of a student with statistics of its own."""
    student = network()
    student(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)))
    made = MeanTeacher(student, 0.99, statistics)
    made.update(0)
    return made


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def test_each_row_has_the_statistics_of_its_target() -> None:
    image = images(5)
    domains = ("fog", "night", "snow", "fog", "night")
    logits = teacher({"fog": "batch", "night": "student", "snow": "batch"}).logits(image, domains)
    fog, night, snow = [0, 3], [1, 4], [2]
    assert torch.allclose(logits[fog], teacher("batch").logits(image[fog]), atol=1e-6)
    assert torch.allclose(logits[snow], teacher("batch").logits(image[snow]), atol=1e-6)
    assert torch.allclose(logits[night], teacher("student").logits(image[night]), atol=1e-6)
    assert not torch.allclose(logits[fog], teacher("batch").logits(image)[fog], atol=1e-3)


def test_a_step_leaves_nothing_to_the_next_one() -> None:
    image, domains = images(2), ("fog", "night")
    made = teacher({"fog": "batch", "night": "student"})
    first = made.logits(image, domains)
    made.update(0)
    assert torch.equal(made.logits(image, domains), first)


def recipe(data_root: Path, statistics: object, **keys: Any) -> Recipe:
    night = {"name": "night", "root": "source", "images": "images"}
    tree: dict[str, Any] = {key: value for key, value in RECIPE.items() if key != "prototypes"}  # a key of ddb
    tree |= {"data_root": str(data_root), "method": "self-training", "targets": [*RECIPE["targets"], night]}
    return parse_recipe({**tree, "self_training": {"teacher_statistics": statistics}, **keys})


def test_a_batch_names_the_target_of_each_row(generated_data: Path) -> None:
    mixed = recipe(generated_data, {"fog": "batch", "night": "student"}, crop={"width": 48, "height": 40, "flip": 0})
    data = open_data(mixed)
    of_files = training_data(mixed, data, data.source, data.target)
    stage = next(stage for stage in stages_of(mixed) if isinstance(stage, TrainingStage))
    stream = paired_crops(mixed, stage, 4, of_files, Rows(1, 3, 4))
    seen = set()
    for batch in (stream[step] for step in range(6)):
        assert len(batch.target_domain) == 3
        assert [part.target_domain for part in batch.parts(3)] == [(name,) for name in batch.target_domain]
        assert batch.on(torch.device("cpu")).target_domain == batch.target_domain
        for name, crop in zip(batch.target_domain, batch.target_image, strict=True):
            domain = data.targets[[target.name for target in mixed.targets].index(name)]
            whole = [torch.from_numpy(domain[number].image).permute(2, 0, 1) for number in range(len(domain))]
            assert any(torch.equal(crop, image) for image in whole)
            seen.add(name)
    assert seen == {"fog", "night"}


@pytest.mark.parametrize("method", ["self-training", "ddb-online", "prototype-denoising"])
def test_a_run_with_one_value_for_all_targets_is_the_same_by_names(
    method: str, generated_data: Path, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"method": method, "source_only": False, "evaluation": {"label_free": {"images": 0}}}
    keys |= {"online": {"distill_after": 1}} if method == "ddb-online" else {}
    weights = []
    for number, statistics in enumerate(["student", {"fog": "student", "night": "student"}]):
        assert run_recipe(recipe(generated_data, statistics, **keys), tmp_path / str(number), [])
        weights.append((tmp_path / str(number) / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("statistics", [{"fog": "batch"}, {"fog": "batch", "night": "batch", "rain": "student"}, {}])
def test_every_target_has_one_value(statistics: dict[str, str], generated_data: Path) -> None:
    with pytest.raises(RecipeError, match=r"self_training\.teacher_statistics: values for .* no others: fog, night"):
        recipe(generated_data, statistics)


def test_an_unknown_value_is_refused(generated_data: Path) -> None:
    with pytest.raises(RecipeError, match=r"1 problem.*\n.*teacher_statistics\.night: expected 'batch' or 'student'"):
        recipe(generated_data, {"fog": "batch", "night": "target"})


def test_several_processes_share_no_stage_with_statistics_per_target(generated_data: Path, tmp_path: Path) -> None:
    """Each process would have another number of passes, and BatchNorm waits for all of them in each pass."""

    def check(statistics: object, processes: int, **keys: Any) -> None:
        made = recipe(generated_data, statistics, **keys)
        planned = plan(stage_graph(made, open_data(made)), tmp_path)
        check_shares(made, waves(made, planned, processes), processes)

    mixed = {"fog": "batch", "night": "student"}
    with pytest.raises(RecipeError, match="2 processes would share the batches of self-training"):
        check(mixed, 2)
    check(mixed, 1)
    check("batch", 2)
    check(mixed, 2, method="ddb", rounds=1)  # one path in each process
    with pytest.raises(RecipeError, match="share the batches of r1-cut"):
        check(mixed, 2, method="ddb", rounds=1, runtime={"parallel_stages": False})


def test_one_row_alone_must_suit_batchnorm(generated_data: Path) -> None:
    small = recipe(generated_data, {"fog": "batch", "night": "student"}, crop={"width": 16, "height": 16})
    with pytest.raises(RecipeError, match="one row alone"):
        check_network(small, stages_of(small))
