"""The models of a round's two paths, for a model folder inside a run folder."""

from pathlib import Path

from domainbridge.build.recipe import load_recipe
from domainbridge.errors import RunFolderError
from domainbridge.run.graph import stage_graph
from domainbridge.run.suggest import models_to_compare

__all__ = ["path_model_folders"]


def path_model_folders(model: Path) -> list[Path]:
    """The model folders of the two paths of the last finished round.

    Args:
        model: ``RUN/model`` or ``RUN/STAGE/model``.

    Raises:
        RunFolderError: the folder lies in no run folder, or the run has no finished round of two paths.
    """
    folder = model.absolute()
    run = next((each for each in folder.parents[:2] if (each / "recipe.yaml").is_file()), None)
    if run is None:
        raise RunFolderError(
            f"{model}: lies in no run folder, so the two paths that trained it are not known; give RUN/model"
        )
    names = models_to_compare(stage_graph(load_recipe(str(run / "recipe.yaml")), None), run)
    if len(names) < 2:
        raise RunFolderError(f"{run}: no finished round of two paths whose disagreement could be shown")
    return [run / name / "model" for name in names]
