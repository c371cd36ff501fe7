"""The model card: what a MODEL folder's README.md says about data, method, scores, licenses, use and limits."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from domainbridge.models.licenses import InitialWeights
from domainbridge.models.model_folder import ModelConfig, read_model_config
from domainbridge.printable import printable
from domainbridge.report.card_sections import (
    TrainingPart,
    label_use,
    license_lines,
    limits,
    method_text,
    package_version,
    part_licenses,
    recipe_weights,
    score_lines,
    score_rows,
    training_parts,
)
from domainbridge.report.comparison import StageScore, compare
from domainbridge.report.run_facts import RunFacts

__all__ = ["plain_card", "run_card"]

_BESIDE = {
    "source-only": "This is the baseline without adaptation: the model learned from the sources alone.",
    "adabn": "This is a baseline: the model of the sources alone, with the target's BatchNorm statistics.",
    "oracle": "This is an upper bound: the model learned from labels of the target.",
}


def run_card(run: RunFacts, stage: str, folder: Path) -> str:
    """The card of a stage's model; the same folder gives the same card.

    Args:
        run: the run folder's content; ``stage`` is finished.
        stage: whose model it is.
        folder: of the model.

    Raises:
        ModelError: no model folder.
    """
    table = compare(run)
    scores = [row[stage] for row in table.values() if stage in row]
    parts = training_parts(run)
    name = run.name if stage == run.final else f"{run.name} {stage}"
    targets = " and ".join(part.name for part in parts if part.role == "target")
    sources = " and ".join(part.name for part in parts if part.role == "source")
    opening = f"Semantic segmentation for {targets or 'the target'}, learned from labels of {sources or 'the source'}"
    opening += " and from images of the target." if stage not in ("source-only", "oracle") else "."
    return _render(
        folder,
        name=name,
        opening=" ".join(filter(None, (opening, _BESIDE.get(stage)))),
        place=f"runs/{run.name}/model" if stage == run.final else f"runs/{run.name}/{stage}/model",
        data=parts,
        few=label_use(run, stage),
        method=method_text(run, stage),
        scores=scores,
        score_lines=score_lines(run, stage, scores),
        version=package_version(run),
        weights=recipe_weights(run),
    )


def plain_card(folder: Path, name: str, origin: str) -> str:
    """The card of a model without a run folder: an imported checkpoint, or a copy from elsewhere.

    Args:
        folder: of the model.
        name: title.
        origin: where the model comes from, a sentence.

    Raises:
        ModelError: no model folder.
    """
    return _render(
        folder,
        name=name,
        opening=f"Semantic segmentation. {origin}",
        place=name,
        data=[],
        few="",
        method=origin,
        scores=[],
        score_lines=["Not recorded."],
        version=None,
    )


def _render(
    folder: Path,
    *,
    name: str,
    place: str,
    data: list[TrainingPart],
    scores: list[StageScore],
    version: str | None,
    weights: InitialWeights | None = None,
    **texts: Any,
) -> str:
    config = read_model_config(folder)
    weights = config.initial_weights or (None if config.teacher_weights else weights)
    licenses = part_licenses(weights, config.teacher_weights, data)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = lambda text: printable(text).replace("\n", " ").replace("|", "\\|")
    template = environment.from_string((files("domainbridge.report") / "model_card.md.j2").read_text(encoding="utf-8"))
    body = template.render(
        name=printable(name),
        place=place,
        limits=limits(config, data, scores),
        classes=[printable(each) for each in config.classes],
        data=data,
        scores=[score_rows(score) for score in scores],
        licenses=licenses,
        license_lines=license_lines(weights, config.teacher_weights),
        **texts,
    )
    content = _front_matter(name, config, data, scores, licenses, version)
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)}---\n\n{body.rstrip()}\n\n"


def _front_matter(
    name: str,
    config: ModelConfig,
    data: list[TrainingPart],
    scores: list[StageScore],
    licenses: list[tuple[str, str | None]],
    version: str | None,
) -> dict[str, Any]:
    """Metadata that the Hugging Face hub reads, and under ``domainbridge`` those that ``hub push`` reads."""
    content: dict[str, Any] = {"library_name": "domainbridge", "pipeline_tag": "image-segmentation"}
    content["tags"] = [
        *("image-segmentation", "semantic-segmentation", "domain-adaptation", "unsupervised-domain-adaptation"),
        _slug(config.spec.backbone),
    ]
    content |= {"license": "other", "license_name": "not-chosen"}
    names = [part.name if part.dataset == "folder" else part.dataset for part in data]
    if names:
        content["datasets"] = list(dict.fromkeys(_slug(each) for each in names))
    content["metrics"] = ["mean_iou"]
    known = [score for score in scores if score.scores.miou.known]
    if known:
        results = [
            {
                "task": {"type": "image-segmentation"},
                "dataset": {"name": score.target, "type": _slug(score.target)},
                "metrics": [{"type": "mean_iou", "name": "mIoU", "value": round(score.scores.miou.value, 2)}],
            }
            for score in known
        ]
        content["model-index"] = [{"name": name, "results": results}]
    parts = [{"part": part, "license": license_name} for part, license_name in licenses]
    content["domainbridge"] = {**({"version": version} if version else {}), "licenses": parts}
    return content


def _slug(text: str) -> str:
    """A text as a name that the hub takes."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "unnamed"
