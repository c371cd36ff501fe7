"""Unsupervised domain adaptive semantic segmentation by deliberated domain bridging (DDB).

    import domainbridge
    run = domainbridge.adapt("quickstart", overrides={"training.steps": 100})
    mask = run.model.predict("photo.jpg")

Names are loaded when they are first used, so that ``import domainbridge`` is fast. The command line ``domainbridge`` is
one caller of this interface.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domainbridge.api import Run, adapt, distill, evaluate, load_model, predict
    from domainbridge.build.recipe import load_recipe
    from domainbridge.config.schema import Recipe
    from domainbridge.evaluation.confusion import Scores
    from domainbridge.evaluation.exported import ExportedPredictor, load_exported
    from domainbridge.evaluation.predictor import Predictor
    from domainbridge.export.export import export_model
    from domainbridge.methods.base import (
        AdaBNStage,
        MethodConfig,
        Objective,
        PrototypeStage,
        StageInputs,
        StageSpec,
        TrainingStage,
        register_method,
    )
    from domainbridge.methods.distillation import Distillation, Teacher
    from domainbridge.methods.mean_teacher import MeanTeacher
    from domainbridge.methods.self_training import SelfTraining
    from domainbridge.methods.source_only import SourceOnly, baseline_stages, source_only_stage
    from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
    from domainbridge.ops.losses import cross_entropy
    from domainbridge.ops.mixing import class_mix, cut_mix, paste
    from domainbridge.run.callbacks.base import NullCallback, register_callback
    from domainbridge.run.results import Results
    from domainbridge.run.suggest import suggest
    from domainbridge.types import Batch

__version__ = "0.1.0"

_HOMES = {
    "domainbridge.api": ("Run", "adapt", "distill", "evaluate", "load_model", "predict"),
    "domainbridge.build.recipe": ("load_recipe",),
    "domainbridge.config.schema": ("Recipe",),
    "domainbridge.evaluation.confusion": ("Scores",),
    "domainbridge.evaluation.exported": ("ExportedPredictor", "load_exported"),
    "domainbridge.evaluation.predictor": ("Predictor",),
    "domainbridge.export.export": ("export_model",),
    "domainbridge.methods.base": (
        *("AdaBNStage", "MethodConfig", "Objective", "PrototypeStage", "StageInputs", "StageSpec", "TrainingStage"),
        "register_method",
    ),
    "domainbridge.methods.distillation": ("Distillation", "Teacher"),
    "domainbridge.methods.mean_teacher": ("MeanTeacher",),
    "domainbridge.methods.self_training": ("SelfTraining",),
    "domainbridge.methods.source_only": ("SourceOnly", "baseline_stages", "source_only_stage"),
    "domainbridge.models.segmenter": ("ModelSpec", "Segmenter", "build_segmenter"),
    "domainbridge.ops.losses": ("cross_entropy",),
    "domainbridge.ops.mixing": ("class_mix", "cut_mix", "paste"),
    "domainbridge.run.callbacks.base": ("NullCallback", "register_callback"),
    "domainbridge.run.results": ("Results",),
    "domainbridge.run.suggest": ("suggest",),
    "domainbridge.types": ("Batch",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdaBNStage",
    "Batch",
    "Distillation",
    "ExportedPredictor",
    "MeanTeacher",
    "MethodConfig",
    "ModelSpec",
    "NullCallback",
    "Objective",
    "Predictor",
    "PrototypeStage",
    "Recipe",
    "Results",
    "Run",
    "Scores",
    "Segmenter",
    "SelfTraining",
    "SourceOnly",
    "StageInputs",
    "StageSpec",
    "Teacher",
    "TrainingStage",
    "__version__",
    "adapt",
    "baseline_stages",
    "build_segmenter",
    "class_mix",
    "cross_entropy",
    "cut_mix",
    "distill",
    "evaluate",
    "export_model",
    "load_exported",
    "load_model",
    "load_recipe",
    "paste",
    "predict",
    "register_callback",
    "register_method",
    "source_only_stage",
    "suggest",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'domainbridge' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
