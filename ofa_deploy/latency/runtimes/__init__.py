"""Runtimes: each turns operators with weights into something that can be run and timed.

`RUNTIMES` maps a runtime's name to a function from a graph to a session.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ofa_deploy.latency.runtimes import onnxruntime

Session = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From an input batch to the output of the graph."""

RUNTIMES: dict[str, Callable[[bytes, int], Session]] = {"onnxruntime": onnxruntime.session}
"""From a serialised graph and a number of threads to a session."""
