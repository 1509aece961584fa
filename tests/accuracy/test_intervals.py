"""Half widths of 95 % intervals."""

import pytest

from ofa_deploy.accuracy.intervals import mean_interval95, share_interval95


def test_half_widths_are_those_of_the_normal_approximation() -> None:
    assert share_interval95(0.9, 10_000) == pytest.approx(100 * 1.96 * (0.9 * 0.1 / 10_000) ** 0.5)
    assert share_interval95(1.0, 50) == 0
    assert mean_interval95(2.0, 16) == pytest.approx(1.96 * 2 / 4)
