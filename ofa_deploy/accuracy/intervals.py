"""Half widths of intervals, by the normal approximation."""

from __future__ import annotations

import math

NORMAL_90 = 1.645
"""Standard deviations on either side of the mean that hold 90 % of a normal distribution."""
NORMAL_95 = 1.96
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


def share_interval95(share: float, number: int) -> float:
    """Of a share (0 to 1) that was counted among so many images: half of its 95 % interval, in percentage points."""
    return 100 * mean_interval95(math.sqrt(share * (1 - share)), number)


def mean_interval95(deviation: float, number: int) -> float:
    """Of the mean of so many values of a standard deviation: half of its 95 % interval, in their unit."""
    return NORMAL_95 * deviation / math.sqrt(number)
