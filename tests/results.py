"""Made-up measurements of search results."""

from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.result_records import Candidate, Certificate, MeasuredAccuracy, Refined, RefinedRound, Verified
from ofa_deploy.spaces.arch import Arch


def candidate(arch: Arch, predicted_ms: float, measured_ms: float, top1_percent: float | None = None) -> Candidate:
    """A network measured as half a point worse than predicted; without an accuracy, only its latency was measured."""
    return Candidate(
        arch=arch,
        predicted_ms=predicted_ms,
        spread_percent=2.0,
        predicted_top1_percent=91.0,
        measured_top1_percent=top1_percent,
        interval95_points=None if top1_percent is None else 0.5,
        measured_ms=measured_ms,
    )


def verified(result: SearchResult) -> Verified:
    """The result's network, measured as it was predicted."""
    predicted_ms = result.limits[0].predicted
    return Verified(
        budget_ms=2 * predicted_ms,
        within_budget=True,
        measured_ms=predicted_ms,
        rounds=2,
        table_correction_percent=1.5,
        machine_slower_percent=-0.5,
        conditions={"device": "cpu", "machine": {"cores": 2}},
        candidates=(candidate(result.arch, predicted_ms, predicted_ms, 90.5),),
    )


def refined(result: SearchResult) -> Refined:
    """One round, and the result's network."""
    network = MeasuredAccuracy(
        arch=result.arch, predicted_top1_percent=91.0, measured_top1_percent=90.5, interval95_points=0.5
    )
    final = RefinedRound(bias_points=0.5, bias_interval95_points=None, networks=(network,))
    first = RefinedRound(number=1, bias_points=0.5, bias_interval95_points=0.1, networks=(network, network))
    return Refined(rounds=(first,), final=final)


def certificate(arch: Arch) -> Certificate:
    """A bound a tenth of a point above the network."""
    return Certificate(
        bound_percent=92.0,
        found_percent=91.9,
        gap_points=0.1,
        proven=False,
        seconds=3.0,
        relaxation_percent=92.5,
        arch=arch,
    )
