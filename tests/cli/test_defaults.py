"""Options of commands beside arguments of the functions behind them: both have defaults, and these must agree."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import domainbridge
from domainbridge.cli.distill import distill
from domainbridge.cli.export import export
from domainbridge.cli.model import evaluate
from domainbridge.cli.predict import predict
from domainbridge.cli.serve import serve
from domainbridge.cli.suggest import suggest
from domainbridge.serve.server import serve_model
from domainbridge.tools.open_model import open_model
from domainbridge.tools.predict_options import PredictOptions

RENAMED = {"max_megabytes": "megabytes", "max_megapixels": "megapixels", "queue": "places", "min_equal": "at_least"}
TEXTS = {"polygons", "scales", "subsets"}
"""Options that are a text of several values on the command line."""


@pytest.mark.parametrize(
    ("command", "function", "least"),
    [
        (distill, domainbridge.distill, 5),
        (evaluate, domainbridge.evaluate, 9),
        (export, domainbridge.export_model, 10),
        (predict, PredictOptions, 12),
        (predict, open_model, 4),
        (serve, serve_model, 8),
        (suggest, domainbridge.suggest, 3),
    ],
)
def test_an_option_and_its_argument_have_one_default(
    command: Callable[..., Any], function: Callable[..., Any], least: int
) -> None:
    options, arguments = inspect.signature(command).parameters, inspect.signature(function).parameters
    both = {name: RENAMED.get(name, name) for name in options if name not in TEXTS}
    pairs = [(options[name].default, arguments[other].default) for name, other in both.items() if other in arguments]
    known = [pair for pair in pairs if inspect.Parameter.empty not in pair]
    assert len(known) >= least
    assert all(one == other for one, other in known)
