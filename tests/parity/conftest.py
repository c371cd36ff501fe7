"""At the end of the tests, list each case with its largest difference."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

differences: dict[str, float] = {}
Compare = Callable[..., None]


@pytest.fixture
def compare() -> Compare:
    """compare(case, ours, theirs, tolerance): assert that they agree and remember by how much."""

    def check(case: str, ours: object, theirs: object, tolerance: float) -> None:
        found = ours.detach().cpu().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
        expected = np.asarray(theirs)
        assert found.shape == expected.shape, f"{case}: {found.shape} instead of {expected.shape}"
        if expected.size == 0:
            return
        assert (np.isnan(found.astype(float)) == np.isnan(expected.astype(float))).all(), case
        difference = float(np.nanmax(np.abs(found.astype(np.float64) - expected.astype(np.float64))))
        differences[case] = max(differences.get(case, 0.0), difference)
        assert difference <= tolerance, f"{case}: differs by {difference:.3g}, allowed {tolerance:.3g}"

    return check


def pytest_terminal_summary(terminalreporter: object) -> None:
    if differences:
        write = terminalreporter.write_line  # type: ignore[attr-defined]
        write("golden cases and largest absolute differences:")
        for case, difference in sorted(differences.items()):
            write(f"  {case:<58} {difference:.2e}")
