"""Licenses of initial weights: printed, and kept in model folders."""

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
from typer.testing import CliRunner

from domainbridge.build.networks import model_config
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.build.stage_network import stage_recipe
from domainbridge.build.weight_licenses import license_notes, teacher_weights
from domainbridge.cli.app import app
from domainbridge.errors import ModelError
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.licenses import LICENSES, InitialWeights, initial_weights, weights_from_json, weights_sentences
from domainbridge.models.model_folder import ModelConfig, read_model_config, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from tiny_domain import RECIPE


@pytest.mark.parametrize(
    ("backbone", "source", "license_name", "commercial"),
    [
        ("vit_small_patch14_reg4_dinov2.lvd142m", "timm/vit_small_patch14_reg4_dinov2.lvd142m", "apache-2.0", "yes"),
        ("vit_small_patch16_dinov3", "timm/vit_small_patch16_dinov3.lvd1689m", "dinov3-license", "with duties"),
        ("convnextv2_atto", "timm/convnextv2_atto.fcmae_ft_in1k", "cc-by-nc-4.0", "no"),
        ("seresnet152d.ra2_in1k", "timm/seresnet152d.ra2_in1k", "apache-2.0", "yes"),
    ],
)
def test_timm_says_the_license(backbone: str, source: str, license_name: str, commercial: str) -> None:
    facts = initial_weights(backbone, "pretrained")
    assert facts is not None
    assert (facts.source, facts.license, facts.commercial) == (source, license_name, commercial)
    assert facts.duties == LICENSES[license_name].duties
    assert bool(facts.remark) == ("in1k" in source), "ImageNet's terms are said where ImageNet was used"
    text = "\n".join(weights_sentences(facts))
    assert source in text
    assert ("NO COMMERCIAL USE" in text) == (commercial == "no")
    assert all(duty in text for duty in facts.duties)


def test_every_license_of_timm_is_told_or_left_to_the_reader() -> None:
    names = {timm.get_pretrained_cfg(name).license for name in timm.list_pretrained()}
    assert names >= set(LICENSES), "no license of ours that timm has under another name"
    for name in sorted(filter(None, names - set(LICENSES) - {"unknown", "other"})):
        facts = InitialWeights("x", name, "unknown")
        assert "read its text" in weights_sentences(facts)[0]


def test_weights_without_a_known_license() -> None:
    assert initial_weights("resnet18_v1c", "none") is None
    facts = initial_weights("resnet18_v1c", "weights/mine.pth")
    assert facts == InitialWeights("file mine.pth", None, "unknown")
    assert "not known" in weights_sentences(facts)[0]
    hinted = initial_weights("vit_small_patch16_dinov3", "mine.pth")
    assert hinted is not None
    assert "dinov3-license" in hinted.remark
    assert hinted.license is None, "the file may be another"


def test_a_model_folder_keeps_the_facts(tmp_path: Path) -> None:
    spec = ModelSpec("test_efficientnet", 16, 2, HeadSpec(channels=8, dilations=(1,)))
    plain = ModelConfig(spec, "ab", ("a", "b"), ((1, 2, 3), (4, 5, 6)), None)
    network = build_segmenter(spec)
    save_model(tmp_path / "plain", network, plain)
    assert "initial_weights" not in json.loads((tmp_path / "plain/config.json").read_text())
    assert read_model_config(tmp_path / "plain") == plain
    facts = initial_weights("vit_small_patch16_dinov3", "pretrained")
    save_model(tmp_path / "bound", network, replace(plain, initial_weights=facts))
    assert read_model_config(tmp_path / "bound").initial_weights == facts
    recipe = parse_recipe(copy.deepcopy(RECIPE) | {"init": str(tmp_path / "bound"), "model": {}})
    assert model_config(recipe).initial_weights == facts, "a continued model is bound as the one before"

    description = json.loads((tmp_path / "bound/config.json").read_text())
    description["initial_weights"]["commercial"] = "surely"
    (tmp_path / "bound/config.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match="initial_weights"):
        read_model_config(tmp_path / "bound")


def test_a_student_keeps_the_licenses_of_its_teachers(tmp_path: Path) -> None:
    """A small student of the run's networks, and a model that starts from such a student."""
    model = {**RECIPE["model"], "backbone": "vit_small_patch16_dinov3", "weights": "pretrained"}
    student = {"backbone": "test_efficientnet", "weights": "none", "output_stride": 16}
    recipe = parse_recipe(copy.deepcopy(RECIPE) | {"model": model, "distillation": {"student": student}})
    stages = {stage.name: stage for stage in stages_of(recipe)}
    dinov3 = initial_weights("vit_small_patch16_dinov3", "pretrained")
    assert dinov3 is not None
    assert teacher_weights(recipe, stages["r2-distill"]) == (dinov3,)
    assert teacher_weights(recipe, stages["r1-distill"]) == (), "it began with the same weights"
    notes = license_notes(recipe, stages.values())
    assert sum("license dinov3-license" in note for note in notes) == 2
    assert any(note.startswith("initial weights of a teacher: timm/vit_small_patch16_dinov3") for note in notes)

    of_student = stage_recipe(recipe, stages["r2-distill"])
    config = model_config(of_student, None, teacher_weights(recipe, stages["r2-distill"]))
    save_model(tmp_path / "student", build_segmenter(config.spec), config)
    assert read_model_config(tmp_path / "student") == config
    told = CliRunner().invoke(app, ["doctor", str(tmp_path / "student")])
    assert told.exit_code == 0
    assert told.output.splitlines() == weights_sentences(dinov3, of_teacher=True)
    later = parse_recipe(copy.deepcopy(RECIPE) | {"init": str(tmp_path / "student"), "model": {}})
    assert teacher_weights(later, stages_of(later)[0]) == (dinov3,)
    description = json.loads((tmp_path / "student/config.json").read_text())
    (tmp_path / "student/config.json").write_text(json.dumps({**description, "teacher_weights": [None]}))
    with pytest.raises(ModelError, match="empty entry"):
        read_model_config(tmp_path / "student")


def test_facts_as_json() -> None:
    facts = initial_weights("efficientnet_lite0", "imagenet")
    assert weights_from_json(json.loads(json.dumps(asdict(facts)))) == facts
    assert weights_from_json(None) is None
    with pytest.raises(ValueError, match="initial_weights"):
        weights_from_json({"source": "x"})
