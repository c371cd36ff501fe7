"""Carrying out an AdaBN stage: a finished student with BatchNorm statistics of target crops; seconds to minutes.

A stage that was stopped or killed begins again: there is no checkpoint.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from torch import Tensor

from domainbridge.build.batches import batchnorm_batches
from domainbridge.build.networks import model_config
from domainbridge.build.training_sizes import training_sizes
from domainbridge.build.weight_licenses import teacher_weights
from domainbridge.methods.adapt_batchnorm import recompute_bn_stats
from domainbridge.methods.base import AdaBNStage
from domainbridge.models.model_folder import load_model, save_model
from domainbridge.run.context import Context
from domainbridge.run.graph import Node
from domainbridge.runtime.signals import StopRequested
from domainbridge.training.loop import Progress

__all__ = ["adapt_to_target"]


def adapt_to_target(node: Node, context: Context, folder: Path) -> tuple[int, float] | None:
    """Write the adapted model; (batches, seconds), or None after a requested stop.

    Several processes take their rows of every batch: the moments are those of all rows (``sync_batchnorm``).
    """
    recipe, runtime, stage = context.recipe, context.runtime, node.spec
    assert isinstance(stage, AdaBNStage)
    began, taken = time.perf_counter(), 0

    def reported(batches: Iterator[Tensor]) -> Iterator[Tensor]:
        nonlocal taken
        for image in batches:
            yield image  # the network has seen the image when the generator goes on
            taken += 1
            context.callback.advance(node, "statistics", taken)
            if runtime.processes.is_main and (taken % recipe.training.log_every == 0 or taken == node.steps):
                context.callback.progress(node, Progress(taken, {}, 0.0, (time.perf_counter() - began) / taken))
            if taken != node.steps and runtime.processes.any(context.stop_requested()):
                raise StopRequested

    context.callback.advance(node, "statistics", 0)
    student, _ = load_model(context.folder / stage.student / "model")
    student = runtime.place(student, channels_last=recipe.training.channels_last)
    crops = batchnorm_batches(recipe, stage, recipe.training.batch_size, context.data, runtime)
    try:
        with closing(crops):
            recompute_bn_stats(student, reported(crops))
    except StopRequested:
        return None
    if runtime.processes.is_main:
        sizes = training_sizes(recipe, stage, context.data.files)
        save_model(folder / "model", student, model_config(recipe, sizes, teacher_weights(recipe, stage)))
    return taken, time.perf_counter() - began
