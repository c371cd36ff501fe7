"""20 steps of every kind of training stage, compared with recorded loss curves: a change of arithmetic shows in review.

After an intended change: ``python tests/parity/test_loss_curves.py``, then look at the difference in review.
"""

import copy
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CURVES = Path(__file__).parent / "loss_curves"
STEPS = 20
RELATIVE = 2e-3
"""Other processors round otherwise, and 20 steps let the differences grow; a change of arithmetic is larger."""
VARIANTS = {
    "corrected": {},
    "published": {"fidelity": "published"},
    "soft": {"distillation": {"mode": "soft", "temperature": 2.0}},
    "student-statistics": {"self_training": {"teacher_statistics": "student", "confidence": 0.4}},
}


def curves(variant: str, data_root: Path) -> Iterator[tuple[str, str]]:
    """(name of the file, its text) of each training stage of one round."""
    import torch

    from domainbridge.build.recipe import parse_recipe
    from domainbridge.run.callbacks.base import NullCallback
    from domainbridge.run.run import run_recipe
    from tiny_domain import RECIPE

    lines: dict[str, list[str]] = {}

    class Lines(NullCallback):
        def progress(self, node: object, progress: object) -> None:
            losses = " ".join(f"{name} {value:.6f}" for name, value in progress.losses.items())  # type: ignore[attr-defined]
            if losses:
                lines.setdefault(node.name, []).append(f"{progress.step} {losses}")  # type: ignore[attr-defined]

    tree = copy.deepcopy(RECIPE) | {"data_root": str(data_root), "rounds": 1} | copy.deepcopy(VARIANTS[variant])
    tree["training"] |= {"steps": STEPS, "log_every": 1, "checkpoint_every": 1000}
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        assert run_recipe(parse_recipe(tree), Path(folder) / "run", [Lines()])
    torch.set_num_threads(threads)
    for stage, texts in lines.items():
        yield f"{variant}-{stage}.txt", "\n".join(texts) + "\n"


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_follow_the_recorded_curves(variant: str, generated_data: Path) -> None:
    names = []
    for name, text in curves(variant, generated_data):
        names.append(name)
        recorded = (CURVES / name).read_text().splitlines()
        assert len(text.splitlines()) == len(recorded) == STEPS
        for line, expected in zip(text.splitlines(), recorded, strict=True):
            fields, wanted = line.split(), expected.split()
            assert fields[1::2] == wanted[1::2], name
            for value, number in zip(fields[2::2], wanted[2::2], strict=True):
                assert float(value) == pytest.approx(float(number), rel=RELATIVE, abs=1e-4), f"{name}, step {fields[0]}"
    assert sorted(names) == sorted(path.name for path in CURVES.glob(f"{variant}-*.txt"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_domain import write_domain

    CURVES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_domain(root / "source", 12, 1, foggy=False, labeled=True)
        write_domain(root / "target", 10, 2, foggy=True, labeled=False)
        write_domain(root / "target-val", 4, 3, foggy=True, labeled=True)
        for variant in VARIANTS:
            for name, text in curves(variant, root):
                (CURVES / name).write_text(text)
