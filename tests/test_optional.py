"""Optional packages: the error says what needs them and how they are installed."""

import sys
from pathlib import Path

import pytest

from ofa_deploy.errors import MeasureError
from ofa_deploy.optional import needing


def test_a_package_that_is_missing_or_broken_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "absent", None)
    with (
        pytest.raises(MeasureError, match="^this needs Absent, which is not installed; pip install absent$"),
        needing("this needs Absent", "pip install absent"),
    ):
        import absent  # noqa: F401
    (tmp_path / "broken.py").write_text("raise ImportError('built for another\\nsecond line')")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        pytest.raises(MeasureError, match="is installed but cannot be loaded: built for another; pip install b$"),
        needing("this needs Broken", "pip install b"),
    ):
        import broken  # noqa: F401
