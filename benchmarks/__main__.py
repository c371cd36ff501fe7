"""Run benchmarks: ``python -m benchmarks [NAME ...] [--out FILE]``; without words, all but `small run`.

``python -m benchmarks gpu`` is another command: what only a GPU can show (see ``gpu_check.py``). So is ``python -m
benchmarks label_free RUN [RUN ...]``: how well scores without labels tell the true mIoU (see ``label_free.py``), and
``python -m benchmarks methods --out FOLDER``: methods with the same budget beside each other (see ``methods.py``),
``python -m benchmarks backbones [NAME:STRIDE ...]``: every family of backbones (see ``backbones.py``), and
``python -m benchmarks serving MODEL``: requests a second and memory of ``serve`` (see ``serving.py``).

Every benchmark runs in a process of its own with one thread, so that none inherits another's memory.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.report import markdown, table

BENCHMARKS = {
    "self-training step": "steps:self_training",
    "distillation step": "steps:distillation",
    "ensemble weights and pseudo-labels": "steps:ensemble",
    "prototypes beyond the network": "prototypes:beyond_the_network",
    "prototype pass": "prototypes:whole_pass",
    "evaluation": "evaluation:scoring",
    "start-up": "start_up:start_up",
    "data from PNG files": "data:from_png",
    "data from JPEG files": "data:from_jpeg",
    "data from lossless copies": "data:from_cache",
    "data from JPEG copies": "data:from_jpeg_cache",
    "small run": "small_run:small_run",
}
_ONLY_WHEN_NAMED = ("small run",)


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.gpu_check import main as check_gpu

        sys.exit(check_gpu(sys.argv[2:]))
    if sys.argv[1:2] == ["label_free"]:
        from benchmarks.label_free import main as compare_scores

        sys.exit(compare_scores(sys.argv[2:]))
    if sys.argv[1:2] == ["methods"]:
        from benchmarks.methods import main as compare_methods

        sys.exit(compare_methods(sys.argv[2:]))
    if sys.argv[1:2] == ["backbones"]:
        from benchmarks.backbones import main as exercise_backbones

        sys.exit(exercise_backbones(sys.argv[2:]))
    if sys.argv[1:2] == ["serving"]:
        from benchmarks.serving import main as measure_serving

        sys.exit(measure_serving(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", help=f"some of: {'; '.join(BENCHMARKS)}; a part of a name is enough")
    parser.add_argument("--out", type=Path, help="merge the answers into this JSON file")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--markdown", type=Path, help="print the table of this JSON file and ask nothing")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(json.loads(arguments.markdown.read_text())))
        return
    chosen = [name for name in BENCHMARKS if not arguments.benchmarks or any(w in name for w in arguments.benchmarks)]
    if not arguments.benchmarks:
        chosen = [name for name in chosen if name not in _ONLY_WHEN_NAMED]
    if not chosen:
        parser.error(f"no such benchmark; there are {'; '.join(BENCHMARKS)}")
    if arguments.here:
        print(json.dumps(_ask(chosen[0])))
        return
    known = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    for name in chosen:
        known[name] = _in_own_process(name)
        print(table(name, known[name]), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(known, indent=1) + "\n")
    if not arguments.out:
        print(json.dumps({name: known[name] for name in chosen}))


def _ask(name: str) -> dict[str, object]:
    module, _, function = BENCHMARKS[name].partition(":")
    answer: dict[str, object] = getattr(importlib.import_module(f"benchmarks.{module}"), function)()
    return answer


def _in_own_process(name: str) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks", name, "--here"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, object] = json.loads(output)
    return answer


if __name__ == "__main__":
    main()
