"""Budgets as users type them."""

import math

import pytest

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.search.budget import parse_amount, parse_latency, parse_range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30ms", 30),
        ("0.03s", 30),
        ("500us", 0.5),
        ("500 µs", 0.5),
        (" 1.5 MS", 1.5),
        ("0%", 2),
        ("25%", 4),
        (".5s", 500),
    ],
)
def test_latencies(text: str, expected: float) -> None:
    assert parse_latency(text, 2.0, 10.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("30", "30ms"),
        ("-5ms", "not a latency"),
        ("0ms", "positive"),
        ("30m", "unit"),
        ("", "not a latency"),
        ("nanms", "not a latency"),
        ("120%", "slowest"),
        ("1e3ms", "not a latency"),
        ("30 minutes", "unit"),
    ],
)
def test_what_is_no_latency(text: str, word: str) -> None:
    with pytest.raises(OfaDeployError, match=word):
        parse_latency(text, 2.0, 10.0)


@pytest.mark.parametrize(
    ("what", "text", "expected"),
    [
        ("macs", "300M", 300),
        ("macs", "0.3G", 300),
        ("macs", "300000000", 300),
        ("params", "500k", 0.5),
        ("size", "10MB", 10),
        ("size", "512kB", 0.512),
        ("size", "50%", 6),
    ],
)
def test_other_amounts_in_millions_and_megabytes(what: str, text: str, expected: float) -> None:
    assert parse_amount(what, text, 2.0, 10.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("what", "text", "word"),
    [
        ("macs", "300ms", "use k, m, g"),
        ("size", "10", "needs a unit"),
        ("size", "10M", "use b, kb, mb"),
        ("params", "120%", "largest"),
        ("macs", "3", "did you mean 3M"),
        ("macs", "0", "positive"),
    ],
)
def test_what_is_no_amount(what: str, text: str, word: str) -> None:
    with pytest.raises(OfaDeployError, match=word):
        parse_amount(what, text, 2.0, 10.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30ms", (-math.inf, 30)), ("10ms..30ms", (10, 30)), ("10ms..", (10, math.inf)), ("..25%", (-math.inf, 4))],
)
def test_ranges(text: str, expected: tuple[float, float]) -> None:
    assert parse_range("latency", text, 2.0, 10.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "word"), [("..", "at least one end"), ("3ms..2ms", "begins above"), ("3..4ms", "unit")]
)
def test_what_is_no_range(text: str, word: str) -> None:
    with pytest.raises(OfaDeployError, match=word):
        parse_range("latency", text, 2.0, 10.0)


def test_a_number_is_no_limit() -> None:
    with pytest.raises(OfaDeployError, match=r"a text with its unit such as 30ms, .* not 30"):
        parse_range("latency", 30, 2.0, 10.0)  # type: ignore[arg-type]
