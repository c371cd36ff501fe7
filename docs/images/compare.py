"""Draw validation images with two stages' predictions and the true labels, side by side.

    python docs/images/compare.py RUN_FOLDER --out compare.jpg [--stages source-only r2-distill] [--images 4]

Reads the run's own recipe.yaml, so it needs the data where the run found it.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from domainbridge.build.datasets import open_data
from domainbridge.build.label_space import scoring_rule
from domainbridge.build.recipe import load_recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.transforms import resize_image
from domainbridge.evaluation.predictor import load_predictor
from domainbridge.run.graph import final_stage, stage_graph


def comparison(run: Path, stages: list[str], count: int, target: str | None) -> np.ndarray:
    """RGB rows of: image, one prediction per stage, true label; ignored pixels of the label are black."""
    recipe = load_recipe(str(run / "recipe.yaml"))
    rule = scoring_rule(recipe)
    validation = open_data(recipe).validation
    samples: FileDataset = validation[target or next(iter(validation))]
    predictors = [load_predictor(run / stage / "model") for stage in stages]
    rows = []
    for index in np.linspace(0, len(samples) - 1, count).round().astype(int):
        sample = samples[int(index)]
        assert sample.label is not None
        image = resize_image(sample.image, (sample.label.shape[0], sample.label.shape[1]))
        labels = [rule.table[predictor.predict(image)] for predictor in predictors]
        painted = [rule.space.palette[label] for label in (*labels, sample.label)]
        rows.append(np.concatenate([image, *painted], 1))
    return np.concatenate(rows)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", nargs="+")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--target")
    arguments = parser.parse_args()
    stages = arguments.stages or [
        "source-only",
        final_stage(stage_graph(load_recipe(str(arguments.run / "recipe.yaml")), None)),
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(comparison(arguments.run, stages, arguments.images, arguments.target)).save(
        arguments.out, quality=88
    )


if __name__ == "__main__":
    main()
