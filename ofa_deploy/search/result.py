"""What a search found, as a value and as a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts, atomic, json_text, records
from ofa_deploy.files.json_text import Json
from ofa_deploy.files.machine import made_with
from ofa_deploy.search.result_records import Certificate, FrontPoint, LimitOutcome, Refined, Verified
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import EXHAUSTED, RULES, Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space

if TYPE_CHECKING:
    import pandas as pd

KIND = "search-result"
DAMAGE = (OfaDeployError, KeyError, TypeError, ValueError, OverflowError, AttributeError)
"""What reading malformed JSON values raises."""
_RECORDS: dict[str, type] = {"verified": Verified, "refined": Refined, "certificate": Certificate}


@dataclass(frozen=True)
class SearchResult:
    """The architecture that a search chose, and what it takes to run the search again.

    Attributes:
        space: name of the search space.
        arch: the chosen architecture.
        objective: what was maximised.
        score: its predicted value (top-1 in percent where the objective is accuracy, otherwise millions of MACs).
        score_std: standard deviation of the prediction; None where there is none.
        risk: how many standard deviations were taken off a prediction when the best few were compared.
        limits: each limit, with what the architecture is predicted to cost.
        macs: its multiply-accumulates.
        params: its learned numbers.
        evaluations: distinct architectures evaluated.
        history: best score, or a front's hypervolume, after each generation.
        settings: of the search, the seed included.
        inputs: of the command: what was asked for, checksums, and whether the table is this machine's.
        front: every network for which no other is better in score and first cost, cheapest first; empty unless a front
            was searched for.
        hypervolume: area between the front and a reference point, in units of score times cost; None without a front.
        verified: what was measured of candidates; None where the search went by predictions.
        refined: what was predicted and measured of fronts; None where the predictor was not fitted anew.
        certificate: a proof about the best prediction; None where none was asked for.
        message: the outcome in words.
        stopping: when the search was to end.
        stopped_by: the rule that ended it, or `exhausted`; empty where that is not on record.
    """

    space: str
    arch: Arch
    objective: str
    score: float
    score_std: float | None
    risk: float
    limits: tuple[LimitOutcome, ...]
    macs: int
    params: int
    evaluations: int
    history: tuple[float, ...]
    settings: SearchSettings
    inputs: dict[str, Any]
    front: tuple[FrontPoint, ...] = ()
    hypervolume: float | None = None
    verified: Verified | None = None
    refined: Refined | None = None
    certificate: Certificate | None = None
    message: str = ""
    stopping: Stopping = field(default_factory=Stopping)
    stopped_by: str = ""

    def predicted(self) -> dict[str, Any]:
        """What a model card says was predicted."""
        accuracy = {"top1_percent": self.score, "top1_std": self.score_std} if self.objective == "accuracy" else {}
        columns = sorted(set(records.keys(LimitOutcome)) - {"sha256"})
        limits = [records.to_json(limit) for limit in self.limits]
        return {**accuracy, "limits": [{key: limit[key] for key in columns} for limit in limits]}

    def to_json(self) -> Json:
        """The result as JSON values."""
        return records.fields_to_json(self)

    def front_frame(self) -> pd.DataFrame:
        """The front with a row a network, cheapest first: arch, score, each cost, macs and params."""
        import pandas as pd

        return pd.DataFrame([point.to_json() for point in self.front])

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchResult:
        """The result that `to_json` made.

        Raises:
            OfaDeployError, KeyError, TypeError, ValueError, OverflowError, AttributeError: something is missing or
                malformed.
        """
        space = get_space(values["space"])
        if not all(set(limit) == set(records.keys(LimitOutcome)) for limit in values["limits"]):
            raise ValueError("a limit is incomplete")
        settings, stopping = dict(values["settings"]), values.get("stopping")
        if stopping is None:  # it was among the settings once
            stopping = {name: settings.pop(name) for name in ("generations", "patience")}
        optional: dict[str, Any] = {
            name: records.from_json(kind, values[name])
            for name, kind in _RECORDS.items()
            if values.get(name) is not None
        }
        typed = {
            "arch": Arch.parse(values["arch"]),
            "limits": tuple(records.from_json(LimitOutcome, limit) for limit in values["limits"]),
            "settings": SearchSettings(**settings),
            "stopping": Stopping(**stopping),
            "history": tuple(map(float, values["history"])),
            "front": tuple(map(FrontPoint.from_json, values["front"])),
        }
        result = cls(**{**values, **typed, **optional})
        if not np.isfinite([result.score, *(limit.predicted for limit in result.limits)]).all():
            raise ValueError("a figure is not finite")
        if result.stopped_by not in ("", EXHAUSTED, *RULES):
            raise ValueError("what ended the search is no rule")
        for arch in result._archs():
            space.check(arch)
        return result

    def _archs(self) -> Iterator[Arch]:
        """Every architecture that the result names."""
        yield self.arch
        yield from (point.arch for point in self.front)
        yield from (candidate.arch for candidate in (self.verified.candidates if self.verified else ()))
        for comparison in (*self.refined.rounds, self.refined.final) if self.refined else ():
            yield from (network.arch for network in comparison.networks)
        if self.certificate:
            yield self.certificate.arch


def dumps(results: Sequence[SearchResult]) -> str:
    """One result, or several of one command, as the JSON text of a file."""
    header = {"schema": artifacts.SCHEMA, "kind": KIND}
    content = results[0].to_json() if len(results) == 1 else {"results": [result.to_json() for result in results]}
    return json_text.dumps(json_text.sealed({**header, **content, "made_with": made_with()}))


def write_results(results: Sequence[SearchResult], path: Path | str) -> None:
    """Write results as JSON, or the front of one as `.csv`.

    Raises:
        ArtifactError: it cannot be written, or there is no front.
    """
    path = Path(path)
    if path.suffix != ".csv":
        atomic.write(path, dumps(results))
    elif len(results) == 1 and results[0].front:
        atomic.write(path, results[0].front_frame().to_csv(index=False, lineterminator="\n"))
    else:
        raise ArtifactError(f"{path}: only the front of one search is written as CSV, see --front; choose a .json")


def load_results(path: Path | str) -> tuple[SearchResult, ...]:
    """Read the file of one or several results.

    Raises:
        ArtifactError: it is missing, damaged, or no file of results.
    """
    path = Path(path)
    if path.suffix == ".csv":
        raise ArtifactError(f"{path} is a list; search with --out FILE.json for a result that can be read again")
    content = json_text.loads(atomic.read(path), path)
    if content.get("kind") != KIND:
        raise ArtifactError(
            f"{path} is not a search result; make one with: ofa-deploy search --latency 30ms --out result.json"
        )
    if content.get("schema") not in range(1, artifacts.SCHEMA + 1):
        raise ArtifactError(f"{path} was written by a newer release; upgrade ofa-deploy")
    json_text.check_seal(content, path)
    values = {key: value for key, value in content.items() if key not in ("kind", "schema", "made_with", "seal")}
    try:
        results = tuple(SearchResult.from_json(each) for each in values.get("results", [values]))
        if not results:
            raise ValueError("it holds none")
        return results
    except DAMAGE as error:
        raise ArtifactError(f"{path} is damaged: {error}; search again") from error


def load_result(path: Path | str) -> SearchResult:
    """Read the file of one result.

    Raises:
        ArtifactError: it is missing, damaged, no file of results, or holds several.
    """
    results = load_results(path)
    if len(results) > 1:
        raise ArtifactError(f"{path} holds {len(results)} results, one is wanted; export all of them with --family")
    return results[0]
