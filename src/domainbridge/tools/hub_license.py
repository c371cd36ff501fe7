"""What the licenses named in a model card mean for sharing the model: a first look by their names, no legal advice."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["NOT_CHOSEN", "SharingTerms", "license_kind", "sharing_terms"]

Kind = Literal["free", "limited", "forbidden", "unknown"]
NOT_CHOSEN = "not-chosen"
"""`license_name` of a card for which nobody has chosen a license."""
_FREE = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "0bsd", "isc", "zlib", "pddl"),
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "odc-by", "cdla-permissive-1.0", "cdla-permissive-2.0"),
}
_FORBIDDEN = re.compile(
    r"\bnd\b|no[ -]?deriv|proprietary|all rights reserved|no[ -]?redistribution|not be (re)?distributed"
)
_LIMITED = re.compile(
    r"\bnc\b|non[ -]?commercial|research|academic|evaluation|\bsa\b|share[ -]?alike|gpl|\bodbl\b|openrail|dinov3|gemma|"
    r"nvidia|apple|llama|community"
)


@dataclass(frozen=True)
class SharingTerms:
    """What a card says about licenses.

    Attributes:
        forbidden: parts whose licenses forbid that a derivative is shared, a phrase each.
        questions: what somebody has to know before the model is public, a sentence each.
        chosen: license of the model itself; None when nobody has chosen one.
    """

    forbidden: tuple[str, ...]
    questions: tuple[str, ...]
    chosen: str | None


def license_kind(name: str | None) -> Kind:
    """The kind of a license, by its name: free, with limits or duties, without the right to share, or unknown."""
    text = re.sub(r"[_\s]+", " ", (name or "").strip().lower())
    if re.sub(r"[ ]", "-", text) in _FREE:
        return "free"
    if _FORBIDDEN.search(text):
        return "forbidden"
    return "limited" if _LIMITED.search(text) else "unknown"


def sharing_terms(card: dict[str, Any]) -> SharingTerms:
    """The terms of a card's metadata.

    Args:
        card: its front matter. ``domainbridge.licenses`` lists the parts; without the list only ``license`` is known.
    """
    chosen = card.get("license")
    if chosen == "other":
        chosen = None if card.get("license_name") in (None, NOT_CHOSEN) else card.get("license_name")
    chosen = chosen if isinstance(chosen, str) else None
    parts = list(_parts(card))
    forbidden = [f"{part} ({name})" for part, name in parts if license_kind(name) == "forbidden"]
    if license_kind(chosen) == "forbidden":
        forbidden.append(f"the model ({chosen})")
    questions = [
        f"{part} has the license {name}, which limits what may be done with the model"
        for part, name in parts
        if license_kind(name) == "limited"
    ]
    unknown = [part if name is None else f"{part} ({name})" for part, name in parts if license_kind(name) == "unknown"]
    if unknown:
        questions.append(f"the license of {', '.join(unknown)} is not known")
    if not parts:
        questions.append("the card does not list the licenses of weights and data")
    return SharingTerms(tuple(forbidden), tuple(questions), chosen)


def _parts(card: dict[str, Any]) -> Iterable[tuple[str, str | None]]:
    ours = card.get("domainbridge")
    listed = ours.get("licenses") if isinstance(ours, dict) else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            name = entry.get("license")
            yield str(entry.get("part")), None if name is None else str(name)
