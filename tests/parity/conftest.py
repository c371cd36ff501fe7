"""At the end of the tests, list each case with its largest difference."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

Compare = Callable[..., None]
CASE = "golden case: "
"""What a test's properties begin with that hold a case and its difference; properties also come from other workers."""


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Compare:
    """compare(case, ours, theirs, tolerance): assert that they agree and remember by how much."""

    def check(case: str, ours: object, theirs: object, tolerance: float) -> None:
        actual = ours.detach().cpu().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
        expected = np.asarray(theirs)
        assert actual.shape == expected.shape, f"{case}: {actual.shape} instead of {expected.shape}"
        if expected.size == 0:
            return
        assert (np.isnan(actual.astype(float)) == np.isnan(expected.astype(float))).all(), case
        difference = float(np.nanmax(np.abs(actual.astype(np.float64) - expected.astype(np.float64))))
        request.node.user_properties.append((CASE + case, difference))
        assert difference <= tolerance, f"{case}: differs by {difference:.3g}, allowed {tolerance:.3g}"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    differences: dict[str, float] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for name, value in getattr(report, "user_properties", []):
            if name.startswith(CASE):
                differences[name] = max(differences.get(name, 0.0), value)
    if differences:
        terminalreporter.write_line("golden cases and largest absolute differences:")
        for name, difference in sorted(differences.items()):
            terminalreporter.write_line(f"  {name.removeprefix(CASE):<58} {difference:.2e}")
