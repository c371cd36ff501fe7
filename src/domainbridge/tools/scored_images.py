"""Which labeled images tell about the final model alone, in sentences for the user."""

from domainbridge.build.datasets import DataSets
from domainbridge.build.target_sections import held_out_targets
from domainbridge.config.schema import Recipe

__all__ = ["scored_image_notes", "tuning_notes"]


def scored_image_notes(recipe: Recipe, data: DataSets) -> list[str]:
    """How many images score every stage, and how many the final model and the baselines only; a sentence per target.

    Args:
        recipe: complete.
        data: its files.
    """
    held_out, notes = held_out_targets(recipe), []
    if recipe.evaluation.hold_out and not held_out:
        notes.append(
            "evaluation.hold_out: no effect, because no target has a validation section without a test section"
        )
    for name, tests in data.test.items():
        every_stage = len(data.validation.get(name, ()))
        if name in held_out:
            text = (
                f"{len(tests)} of {len(tests) + every_stage} validation images are held out (evaluation.hold_out) and"
            )
        else:
            text = f"{len(tests)} test images beside {every_stage} validation images; the test images"
        notes.append(f"{name}: {text} score the final model and the baselines only")
    return notes


def tuning_notes(recipe: Recipe) -> list[str]:
    """A reminder for targets whose only labeled images are those that people look at while they choose keys."""
    names = [target.name for target in recipe.targets if target.validation is not None and target.test is None]
    names = [name for name in names if name not in held_out_targets(recipe)]
    if not names:
        return []
    return [
        f"{', '.join(names)}: the validation images score every stage; if keys are chosen by these scores, name other "
        "images in a section test, or set evaluation.hold_out, for an honest final score"
    ]
