"""The Python interface: adapt, distill, load a model, evaluate, predict. The command line calls the same functions."""

from domainbridge.api.models import load_model
from domainbridge.api.predicting import predict, predict_with
from domainbridge.api.running import Run, adapt, distill
from domainbridge.api.scoring import evaluate

__all__ = ["Run", "adapt", "distill", "evaluate", "load_model", "predict", "predict_with"]
