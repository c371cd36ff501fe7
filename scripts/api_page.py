"""Print docs/api.md: the public names of ``domainbridge`` with their signatures and docstrings.

python scripts/api_page.py > docs/api.md
"""

import inspect
import re
from collections.abc import Iterator

from pydantic import BaseModel

import domainbridge

HEAD = """# Python interface

`import domainbridge` offers these names. This page is printed from the docstrings (`python scripts/api_page.py`).
[Extending](extending.md) shows a method, a backbone, a head, a layout and a tracker; `examples/` has whole scripts.
"""
_WIDTH = 110
GROUPS = {
    "Adapt, evaluate, predict": (
        *("adapt", "distill", "Run", "Results", "Scores", "load_model", "Predictor", "evaluate", "predict", "suggest"),
    ),
    "Export": ("export_model", "load_exported", "ExportedPredictor"),
    "Recipes": ("load_recipe", "Recipe"),
    "Objectives": ("SelfTraining", "Distillation", "Teacher", "SourceOnly", "MeanTeacher"),
    "Operations": ("class_mix", "cut_mix", "paste", "cross_entropy"),
    "Networks and batches": ("build_segmenter", "ModelSpec", "Segmenter", "Batch"),
    "Methods of your own": (
        *("register_method", "MethodConfig", "Objective", "StageSpec", "TrainingStage", "PrototypeStage"),
        "AdaBNStage",
        *("StageInputs", "baseline_stages", "source_only_stage"),
    ),
    "Trackers of your own": ("register_callback", "NullCallback"),
}


def annotated(annotation: object) -> str:
    """A type without module names, e.g. ``Tensor``."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:\w+\.)+(?=[A-Za-z])", "", text)
    return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]", r"NDArray[\1]", text)


def declared(parameter: inspect.Parameter) -> str:
    """``name: type = default`` of one parameter."""
    known = parameter.annotation is not parameter.empty
    text = f"{parameter.name}: {annotated(parameter.annotation)}" if known else parameter.name
    if parameter.default is parameter.empty:
        return text
    default = repr(parameter.default)
    return f"{text} = {'...' if default.startswith('<') else default}"


def signature(name: str, value: object) -> str:
    """``name(parameters) -> result``, a parameter per line where it is long; of a recipe's part the name alone."""
    protocol = getattr(value, "_is_protocol", False)
    if not callable(value) or protocol or (inspect.isclass(value) and issubclass(value, BaseModel)):
        return name
    callable_signature = inspect.signature(value)
    parts = []
    for parameter in callable_signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        if parameter.name != "self":
            parts.append(declared(parameter))
    gives = callable_signature.return_annotation not in (callable_signature.empty, None, "None")
    result = f" -> {annotated(callable_signature.return_annotation)}" if gives and not inspect.isclass(value) else ""
    line = f"{name}({', '.join(parts)}){result}"
    return line if len(line) <= _WIDTH else f"{name}(\n    " + ",\n    ".join(parts) + f",\n){result}"


def documentation_of(value: object) -> str:
    """The docstring; of a class also that of its constructor."""
    text = inspect.getdoc(value) or ""
    constructor = vars(value).get("__init__") if inspect.isclass(value) else None
    arguments = inspect.getdoc(constructor) if constructor is not None and constructor.__doc__ else None
    return f"{text}\n\n{arguments}" if arguments else text


def described(name: str, value: object, level: str) -> Iterator[str]:
    """Heading, signature and docstring of a name, then those of a class's public methods."""
    yield f"{level} {name}\n"
    yield f"```python\n{signature(name, value)}\n```\n"
    documentation = documentation_of(value)
    yield "```text\n" + documentation + "\n```\n" if "\n" in documentation else documentation + "\n"
    if inspect.isclass(value):
        for method, function in vars(value).items():
            plain = getattr(function, "__func__", getattr(function, "fget", getattr(function, "func", function)))
            if not method.startswith("_") and inspect.isfunction(plain) and plain.__doc__:
                first = " ".join(inspect.getdoc(plain).split("\n\n")[0].split())
                shown = f"{method}()" if callable(function) or isinstance(function, classmethod) else method
                yield f"- `{shown}`: {first}"
        yield ""


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, names in GROUPS.items():
        lines.append(f"## {title}\n")
        for name in names:
            lines.extend(described(name, getattr(domainbridge, name), "###"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    missing = set(domainbridge.__all__) - {name for names in GROUPS.values() for name in names} - {"__version__"}
    assert not missing, f"names without a place on the page: {missing}"
    print(page(), end="")
