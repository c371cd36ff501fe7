"""The graph of stages: inputs, fingerprints, statuses."""

import copy
import json
from pathlib import Path

import pytest

from domainbridge.build.recipe import parse_recipe
from domainbridge.methods.base import PrototypeStage, TrainingStage
from domainbridge.run.graph import Node, final_stage, plan, stage_graph
from tiny_domain import RECIPE


def nodes(**changes: object) -> dict[str, Node]:
    tree = {**copy.deepcopy(RECIPE), **changes}
    if changes.get("method") == "self-training":
        del tree["prototypes"]
    recipe = parse_recipe(tree)
    return {node.name: node for node in stage_graph(recipe, None)}


def training_stage(node: Node) -> TrainingStage:
    assert isinstance(node.spec, TrainingStage)
    return node.spec


def changed(**changes: object) -> set[str]:
    before, after = nodes(), nodes(**changes)
    return {name for name in after if name not in before or after[name].fingerprint != before[name].fingerprint}


def test_inputs_come_first_and_students_start_as_published() -> None:
    graph = nodes()
    done: set[str] = set()
    for node in graph.values():
        assert set(node.spec.inputs) <= done
        done.add(node.name)
    assert training_stage(graph["r1-cut"]).init is None
    assert training_stage(graph["r2-cut"]).init == training_stage(graph["r2-class"]).init == "r1-distill"
    assert training_stage(graph["r1-distill"]).init is training_stage(graph["r2-distill"]).init is None
    assert graph["r2-distill"].spec.inputs == ("r2-cut", "r2-class", "r2-prototypes")
    assert final_stage(graph.values()) == "r2-distill"


def test_warm_start() -> None:
    graph = nodes(warm_start=True)
    for name in ("r1-cut", "r1-class", "r1-distill"):
        assert training_stage(graph[name]).init == "source-only"
    for name in ("r2-cut", "r2-class", "r2-distill"):
        assert training_stage(graph[name]).init == "r1-distill"


def test_without_prototypes_no_stage_collects_them() -> None:
    assert not any(isinstance(node.spec, PrototypeStage) for node in nodes(distillation={"prototypes": False}).values())


def test_self_training_is_one_path_after_the_baseline() -> None:
    graph = nodes(method="self-training", warm_start=True)
    assert list(graph) == ["source-only", "self-training"]
    assert training_stage(graph["self-training"]).init == "source-only"
    cut = nodes(method="self-training", warm_start=True, mixing="cut")
    assert cut["self-training"].fingerprint != graph["self-training"].fingerprint
    assert cut["source-only"].fingerprint == graph["source-only"].fingerprint


ROUND_2 = {"r2-cut", "r2-class", "r2-prototypes", "r2-distill"}
DISTILL_ON = {"r1-distill", *ROUND_2}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sources": [{**RECIPE["sources"][0], "license": "mit"}]}, set()),
        ({"targets": [{**RECIPE["targets"][0], "license": "mit"}]}, set()),
        ({"stages": {"r2-distill": {"steps": 9}}}, {"r2-distill"}),
        ({"stages": {"r1-class": {"steps": 9}}}, {"r1-class", "r1-prototypes", *DISTILL_ON}),
        ({"distillation": {"mode": "soft"}}, DISTILL_ON),
        ({"prototypes": {"passes": 2}}, {"r1-prototypes", *DISTILL_ON}),
        ({"self_training": {"confidence": 0.9}}, {"r1-cut", "r1-class", "r1-prototypes", *DISTILL_ON}),
        ({"evaluation": {"flip": True, "scales": [0.5, 1]}}, set()),
        ({"runtime": {"num_workers": 3}}, set()),
        ({"data_root": "/elsewhere"}, set()),
        ({"training": {**RECIPE["training"], "log_every": 1, "checkpoint_every": 7}}, set()),
        ({"training": {**RECIPE["training"], "source_augmentation": "none"}}, set()),
        ({"training": {**RECIPE["training"], "source_augmentation": "strong"}}, set(nodes())),
        ({"training": {**RECIPE["training"], "trunk": "whole", "layer_decay": 1.0, "lr_mults": {}}}, set()),
        ({"training": {**RECIPE["training"], "clip_grad_norm": 1.0}}, set(nodes())),
        ({"training": {**RECIPE["training"], "early_stopping": None}}, set()),
        ({"training": {**RECIPE["training"], "early_stopping": {"every": 2}}}, set(nodes()) - {"source-only"}),
        ({"stages": {"r2-distill": {"early_stopping": {"images": 8}}}}, {"r2-distill"}),
        ({"stages": {"r2-distill": {"trunk": "frozen"}}}, {"r2-distill"}),
        ({"stages": {"r2-distill": {"trunk": "lora", "lora_rank": 4}}}, {"r2-distill"}),
        ({"crop": {**RECIPE["crop"], "scale": [1.0, 1.0]}}, set()),
        ({"crop": {**RECIPE["crop"], "target_scale": [0.5, 1.0]}}, set(nodes())),
        ({"stages": {"r2-distill": {"label_smoothing": 0.1, "class_weights": {"box": 2.0}}}}, {"r2-distill"}),
        ({"source_only": False}, set()),
        ({"rounds": 1}, set()),
        ({"seed": 4}, set(nodes())),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_change_reaches_its_stage_and_the_descendants_only(changes: dict, expected: set[str]) -> None:
    assert changed(**changes) == expected


def written(folder: Path, node: Node, file: str, **changes: object) -> None:
    content = {"fingerprint": node.fingerprint, "values": node.values, "steps": 4, "seconds": 1.0, "step": 2}
    (folder / node.name).mkdir(exist_ok=True)
    (folder / node.name / file).write_text(json.dumps(content | changes))


def test_statuses(tmp_path: Path) -> None:
    graph = nodes()
    cut, distill = graph["r1-cut"], graph["r1-distill"]

    def status(name: str) -> tuple[str, str]:
        actual = {item.name: item.status for item in plan(graph.values(), tmp_path)}[name]
        return actual.action, actual.reason

    assert status("r1-cut") == ("run", "not done yet")
    written(tmp_path, cut, "started.json")
    assert status("r1-cut") == ("run", "state.pt is missing")
    (tmp_path / "r1-cut/state.pt").write_bytes(b"x")
    assert status("r1-cut") == ("resume", "from step 2")
    written(tmp_path, cut, "done.json")
    assert status("r1-cut")[0] == "done"
    written(tmp_path, cut, "done.json", fingerprint="x", values={**cut.values, "seed": 99})
    (tmp_path / "r1-cut/started.json").unlink()
    assert status("r1-cut") == ("run", "changed: seed 99 -> 3")
    written(tmp_path, distill, "done.json", fingerprint="x")
    assert status("r1-distill") == ("run", "its input r1-cut and r1-class and r1-prototypes changed")
    (tmp_path / "r1-cut/done.json").write_bytes(b"\xff")
    assert status("r1-cut") == ("run", "done.json cannot be read")
