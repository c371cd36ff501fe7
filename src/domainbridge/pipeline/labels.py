"""From a recipe's words about labels to spaces, decoders and the scoring rule."""

from domainbridge.config.domains import LabelSource, LabelSpaceDefinition
from domainbridge.config.schema import Recipe
from domainbridge.data.decode import IdLabels, LabelDecoder, PaintedLabels, label_map_decoder
from domainbridge.data.layouts import known_layout
from domainbridge.data.spaces import BUILT_IN, LabelSpace, label_space, space_table, table_by_names
from domainbridge.errors import RecipeError
from domainbridge.evaluation.inference import InferenceRule
from domainbridge.evaluation.scoring import ScoringRule

__all__ = ["scoring_rule", "source_decoder", "training_space", "validation_decoder"]


def training_space(recipe: Recipe) -> LabelSpace:
    """The space that the network predicts.

    Raises:
        RecipeError: unknown.
    """
    return _space(recipe.label_space)


def scoring_rule(recipe: Recipe) -> ScoringRule:
    """How the recipe scores.

    Raises:
        RecipeError: a space, map or class is unknown.
    """
    rule = recipe.evaluation
    trained = training_space(recipe)
    space = trained if rule.label_space is None else _space(rule.label_space)
    table = table_by_names(rule.map, trained, space) if rule.map is not None else space_table(trained, space)
    for name in rule.exclude:
        space.index(name)
    window = (rule.window or (recipe.crop.height, recipe.crop.width)) if rule.mode == "slide" else None
    return ScoringRule(space, table, rule.exclude, InferenceRule(window, rule.flip))


def source_decoder(recipe: Recipe, rule: LabelSource, dataset: str, where: str) -> LabelDecoder:
    """How a domain's label files become train ids of the recipe's space.

    Raises:
        RecipeError: no way leads from the files to the space.
    """
    space = training_space(recipe)
    if rule.label_map is not None and rule.label_space is not None:
        raise RecipeError(f"{where}: give label_map or label_space, not both")
    if rule.label_map is not None:
        return label_map_decoder(rule.label_map, space, where)
    if dataset != "folder" and rule.label_space is None:
        layout = known_layout(dataset, where)
        stored = layout.decoder()
        return IdLabels(space_table(BUILT_IN[layout.label_space], space)[stored.table], stored.allowed, dataset)
    own = label_space(rule.label_space) if rule.label_space not in (None, space.name) else space
    return IdLabels.in_space(space_table(own, space), own)


def validation_decoder(recipe: Recipe, rule: LabelSource, dataset: str, where: str) -> LabelDecoder:
    """How a validation set's label files become ids of the scoring space: as a source's would, then as predictions do.

    Files that are in the scoring space already are read as they are.

    Raises:
        RecipeError: no way leads from the files to the space.
    """
    scored = scoring_rule(recipe)
    if rule.label_space == scored.space.name:
        return IdLabels.in_space(space_table(scored.space, scored.space), scored.space)
    decoder = source_decoder(recipe, rule, dataset, where)
    if isinstance(decoder, PaintedLabels):
        return PaintedLabels(decoder.colors, scored.table[decoder.train_ids])
    return IdLabels(scored.table[decoder.table], decoder.allowed, decoder.space)


def _space(definition: str | LabelSpaceDefinition) -> LabelSpace:
    if isinstance(definition, str):
        return label_space(definition)
    return label_space(definition.name, definition.classes, definition.colors)
