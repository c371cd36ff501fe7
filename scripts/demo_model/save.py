"""Round the model of a run of ``recipe.yaml`` to float16, as the model that the quickstart starts from.

    domainbridge run scripts/demo_model/recipe.yaml data_root=DATA --only source-only --out RUN
    python scripts/demo_model/save.py RUN

DATA holds ``city``, 720 training images of a rendered city (our own work, CC0). The clear images of the quickstart
are a part of them. The run's progress is ``metrics.jsonl`` beside this file.
"""

import shutil
import sys
from pathlib import Path

import torch

from domainbridge.models.model_folder import load_model, save_model

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "src/domainbridge/quickstart/model"


def main(run: Path) -> None:
    model, config = load_model(run / "source-only/model")
    save_model(MODEL, model, config, kernel_type=torch.float16)
    shutil.copyfile(run / "source-only/metrics.jsonl", HERE / "metrics.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
