"""Going on from a finished model without source images: the losses, what is refused, a run."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from domainbridge.api import adapt
from domainbridge.build.batches import paired_crops, training_data
from domainbridge.build.datasets import open_data
from domainbridge.build.networks import model_config
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.errors import RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.methods.source_free import SourceFree
from domainbridge.models.model_folder import save_model
from domainbridge.models.segmenter import Segmenter, build_segmenter
from domainbridge.ops.losses import cross_entropy
from domainbridge.ops.masking import block_mask
from domainbridge.run.graph import stage_graph
from domainbridge.types import Batch, Rows
from interrupted import run_until_killed
from tiny_domain import RECIPE


def network() -> Segmenter:
    torch.manual_seed(4)
    return build_segmenter(model_config(parse_recipe(copy.deepcopy(RECIPE))).spec)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "model"
    save_model(folder, network(), model_config(parse_recipe(copy.deepcopy(RECIPE))))
    return folder


def tree_of(finished: Path, **changes: Any) -> dict[str, Any]:
    left_out = ("prototypes", "source_only", "model")
    tree = {key: copy.deepcopy(value) for key, value in RECIPE.items() if key not in left_out}
    return {**tree, "method": "source-free", "sources": [], "init": str(finished), **changes}


def test_losses_need_the_target_alone() -> None:
    student = network().train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    target = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    unread = torch.full_like(target, torch.nan)
    batch = Batch(unread, torch.full((2, 32, 32), 255), target)
    objective = SourceFree(student, ("augmented", "masked"), block_size=8, ratio=0.5, confidence=0.34)
    objective.before_step(0)
    losses = dict(objective.losses(batch, torch.Generator().manual_seed(2)))
    assert len(losses) == objective.num_losses == 2
    logits = copy.deepcopy(student)(target).logits
    large = torch.nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False).softmax(1)
    quality = (large.amax(1) >= 0.34).float().mean()
    label = large.argmax(1)
    torch.testing.assert_close(losses["augmented"], quality * cross_entropy(student(target).logits, label))
    mask = block_mask(target, torch.Generator().manual_seed(2), block_size=8, ratio=0.5)[:, None]
    hidden = torch.where(mask, target, student.mean)
    torch.testing.assert_close(losses["masked"], quality * cross_entropy(student(hidden).logits, label))


def refused(tree: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree)
    return str(caught.value)


def test_what_is_refused(finished: Path) -> None:
    assert parse_recipe(tree_of(finished)).model.backbone == "test_efficientnet"  # that of the finished model
    message = refused({**copy.deepcopy(RECIPE), "sources": []})
    assert "sources: expected a list with at least 1 element, found []; method ddb learns from labeled" in message
    assert "use method: source-free" in message
    message = refused(tree_of(finished, sources=copy.deepcopy(RECIPE["sources"])))
    assert "sources: method source-free learns from no labels, found clear; write sources: []" in message
    tree = tree_of(finished, sampling={"rare_classes": True}, selection="entropy")
    assert "sampling.rare_classes: counts classes" in refused(tree)
    assert "selection: entropy is calibrated on labeled source images" in refused(tree)
    tree = tree_of(finished, crop={"width": 32, "height": 32, "scale": [0.5, 2.0]})
    tree["training"]["source_augmentation"] = "strong"
    assert "crop.scale: changes crops of a source" in refused(tree)
    assert "training.source_augmentation: changes crops of a source" in refused(tree)
    tree = tree_of(finished)
    tree["targets"][0]["few"] = {"split": "few.txt"}
    assert "found fog-few; write sources: [], and leave out section few of a target" in refused(tree)
    swapped = {"name": "scene", "classes": ["box", "ground", "sky"]}
    assert "have another order; the model must predict" in refused(tree_of(finished, label_space=swapped))
    assert "differ in sky, road" in refused(
        tree_of(finished, label_space={**swapped, "classes": ["box", "ground", "road"]})
    )
    assert "not a model folder" in refused(tree_of(finished.parent))
    tree = tree_of(finished)
    del tree["init"]
    assert "init" in refused(tree)


def test_a_run_without_source_images(finished: Path, generated_data: Path, tmp_path: Path) -> None:
    tree = tree_of(finished, data_root=str(generated_data))
    run = adapt(tree, out=tmp_path / "run")
    assert run.finished
    assert list(run.results.stages) == ["initial", "source-free"]
    assert run.results.final == "source-free"
    assert {len(stage.targets) for stage in run.results.stages.values()} == {1}
    assert (tmp_path / "run/report.html").exists()
    weights = {
        name: load_file(tmp_path / "run" / name / "model/model.safetensors") for name in ("initial", "source-free")
    }
    begun = load_file(finished / "model.safetensors")
    assert all(torch.equal(value, weights["initial"][name]) for name, value in begun.items())
    assert any(not torch.equal(value, weights["source-free"][name]) for name, value in begun.items())
    assert adapt(tree, out=tmp_path / "run").finished  # everything is there

    tree["training"] |= {"log_every": 1}
    run_until_killed(tree, tmp_path / "killed", "source-free", 3)
    assert json.loads((tmp_path / "killed/source-free/started.json").read_text())["step"] == 2
    assert adapt(tree, out=tmp_path / "killed").finished
    again = load_file(tmp_path / "killed/model/model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights["source-free"].items())

    recipe = parse_recipe(tree)
    data = open_data(recipe)
    stage = stages_of(recipe)[-1]
    assert isinstance(stage, TrainingStage)
    files = training_data(recipe, data, data.source, data.target)
    batch = paired_crops(recipe, stage, 2, files, Rows.whole(2))[3]
    assert torch.equal(batch.source_image, batch.target_image)
    assert (batch.source_label == 255).all()
    scaled = parse_recipe(tree, ["crop.target_scale=[2.0,2.0]"])
    larger = paired_crops(scaled, stage, 2, files, Rows.whole(2))[3]
    assert torch.equal(larger.source_image, larger.target_image)
    assert not torch.equal(larger.target_image, batch.target_image), "the scale jitter holds without sources too"
    values = [stage_graph(each, data)[-1].values for each in (recipe, scaled)]
    assert ["target_scale" in each for each in values] == [False, True], "stages without the jitter run again"
