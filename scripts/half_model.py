"""A model folder with half the size: ``python scripts/half_model.py MODEL OUT``.

Weights of convolutions and linear layers become float16; vectors (biases, BatchNorm) stay float32, whose range they
need. ``load_model`` reads such a folder like any other; the network computes in float32.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from domainbridge.files import file_checksum, write_text
from domainbridge.models.model_folder import DESCRIPTION, WEIGHTS, verify_model


def main(model: Path, out: Path) -> None:
    verify_model(model)
    weights = {name: value.half() if value.dim() > 1 else value for name, value in load_file(model / WEIGHTS).items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / WEIGHTS)
    description = json.loads((model / DESCRIPTION).read_text())
    description["sha256"] = file_checksum(out / WEIGHTS)
    write_text(out / DESCRIPTION, json.dumps(description, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
