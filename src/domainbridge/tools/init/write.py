"""From folders to a recipe: look, ask what cannot be known, choose sizes, write."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from domainbridge.errors import RecipeError
from domainbridge.files import write_text
from domainbridge.tools.init.classes import Ask, FoundClasses, name_classes
from domainbridge.tools.init.inspect import FoundDomain, Row, find_domain
from domainbridge.tools.init.recipe_text import domain_name, recipe_text, recipe_tree
from domainbridge.tools.init.sizes import Sizes, choose_sizes

__all__ = ["Found", "look", "write_recipe"]


@dataclass(frozen=True)
class Found:
    """The domains of a recipe.

    Attributes:
        source, target: as found.
        validation: labeled target images, if any.
    """

    source: FoundDomain
    target: FoundDomain
    validation: FoundDomain | None

    @property
    def rows(self) -> list[Row]:
        """Of the table that tells the user what was understood."""
        domains = (self.source, self.target, self.validation)
        return [row for domain in domains if domain is not None for row in domain.rows]

    def named(self, classes: Sequence[str], ask: Ask | None) -> "Found":
        """The same with the user's names of classes.

        Args:
            classes: names in the order of the source's values; empty: those that were found.
            ask: for the names that are not known; None: numbered names.

        Raises:
            RecipeError: another number of names than of values.
        """
        if self.source.classes is None:
            return self
        understood = self.source.classes
        if classes:
            if len(classes) != len(understood.names):
                raise RecipeError(
                    f"--classes: {len(classes)} names for {len(understood.names)} values: {understood.evidence}"
                )
            understood = replace(understood, names=dict(zip(understood.names, classes, strict=True)), named=True)
        understood = name_classes(understood, ask)
        validation = self.validation
        if validation is not None and validation.classes is not None:
            validation = replace(validation, classes=_same_names(validation.classes, understood))
        return replace(self, source=replace(self.source, classes=understood), validation=validation)


def _same_names(classes: FoundClasses, source: FoundClasses) -> FoundClasses:
    """The names of the source for the same values; values that the source lacks keep a name without a class."""
    if classes.named or classes.colors != source.colors:
        return classes
    return replace(classes, names={value: source.names.get(value, f"value {value}") for value in classes.names})


def look(source: Path, target: Path, validation: Path | None) -> Found:
    """Look at the folders.

    Raises:
        DataError: a folder has no images, or no labels where labels are needed.
    """
    first = ("train", "default", "trainval")
    return Found(
        find_domain(source, "source", first),
        find_domain(target, "target", first),
        find_domain(validation, "validation", ("val", "test", "dev")) if validation is not None else None,
    )


def write_recipe(understood: Found, out: Path | None) -> tuple[Path, Sizes]:
    """Write the recipe.

    Args:
        found: with the names of the classes.
        out: path to the recipe; default: SOURCE-to-TARGET.yaml in the working folder.

    Returns:
        The path, and the chosen sizes.

    Raises:
        RecipeError: the file exists.
    """
    name = out.stem if out is not None else f"{domain_name(understood.source)}-to-{domain_name(understood.target)}"
    path = out or Path(f"{name}.yaml")
    if path.exists():
        raise RecipeError(f"{path}: exists; choose another name with --out")
    domains = (understood.source, understood.target, understood.validation)
    sizes = choose_sizes(recipe_tree(name, *domains), min(understood.source.size, understood.target.size, key=min))
    write_text(path, recipe_text(name, path, *domains, sizes))
    return path, sizes
