"""Adapt a model, look at its scores, predict an image: the whole product from Python.

python examples/adapt_from_python.py [STEPS] [OUT]
"""

import sys
from pathlib import Path

import domainbridge
from domainbridge.run.callbacks.console import ConsoleCallback

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("runs/from-python")

if __name__ == "__main__":
    # The recipe of quickstart with one path and one round; its images come with the package. The same call resumes.
    run = domainbridge.adapt(
        "quickstart-self-training",
        overrides={"training.steps": steps, "training.warmup_steps": min(steps, 10), "stages": {}},
        out=out,
        callbacks=[ConsoleCallback()],
    )
    for stage, result in run.results.stages.items():
        for target, scores in result.targets.items():
            print(f"{stage} on {target}: mIoU {scores.miou:.1f} %")

    images = sorted((Path(domainbridge.__file__).parent / "quickstart/fog/images/val").glob("*"))
    mask = run.model.predict(images[0])
    names = [run.model.classes[value] for value in sorted(set(mask.ravel().tolist()))]
    print(f"{images[0].name}: {mask.shape[1]}x{mask.shape[0]} pixels, classes {', '.join(names)}")
    written = domainbridge.predict(run.model, images[:2], out / "predictions", overlay=True)
    print(f"{written} images written to {out / 'predictions'}")
