"""What a search found, as a value and as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import artifacts, atomic, json_text
from ofa_deploy.files.json_text import Json
from ofa_deploy.files.machine import made_with
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import EXHAUSTED, RULES, Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import get_space

KIND = "search-result"
_LIMIT = {"name", "unit", "predicted", "lower", "upper", "margin_percent", "of", "sha256"}


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
        limits: each limit and what the architecture is predicted to cost, see `limits.Limit.outcome`.
        macs: its multiply-accumulates.
        params: its learned numbers.
        evaluations: distinct architectures evaluated.
        history: best score, or a front's hypervolume, after each generation.
        settings: of the search, the seed included.
        inputs: of the command: what was asked for, checksums, and whether the table is this machine's.
        front: of a search for a front: every network for which no other is better in score and first cost; rows as
            `limits.Limit.outcome` and `score` have them. Empty otherwise.
        hypervolume: of the front, see `front.hypervolume`.
        verified: what was measured of the candidates, see `verify`.
        refined: what was predicted and measured of fronts, see `refine`.
        certificate: a proof about the predictor's best, see `certify`.
        message: the outcome in words.
        stopping: when the search was to end.
        stopped_by: what ended it, see `Stopping.ending`.
    """

    space: str
    arch: Arch
    objective: str
    score: float
    score_std: float | None
    risk: float
    limits: tuple[dict[str, Any], ...]
    macs: int
    params: int
    evaluations: int
    history: tuple[float, ...]
    settings: SearchSettings
    inputs: dict[str, Any]
    front: tuple[dict[str, Any], ...] = ()
    hypervolume: float | None = None
    verified: dict[str, Any] | None = None
    refined: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None
    message: str = ""
    stopping: Stopping = field(default_factory=Stopping)
    stopped_by: str = ""

    def predicted(self) -> dict[str, Any]:
        """What a model card says was predicted."""
        accuracy = {"top1_percent": self.score, "top1_std": self.score_std} if self.objective == "accuracy" else {}
        costs = [{key: limit[key] for key in sorted(_LIMIT - {"sha256"})} for limit in self.limits]
        return {**accuracy, "limits": costs}

    def to_json(self) -> Json:
        """The result as JSON values."""
        return asdict(self) | {"arch": str(self.arch)}

    def front_csv(self) -> str:
        """The front as CSV text, cheapest first."""
        text = io.StringIO()
        rows = list(self.front)
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["arch"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> SearchResult:
        """The result that `to_json` made.

        Raises:
            OfaDeployError, KeyError, TypeError, ValueError, OverflowError, AttributeError: something is missing or
                malformed.
        """
        space = get_space(about["space"])
        rows = {key: tuple(dict(row) for row in about[key]) for key in ("limits", "front")}
        settings, stopping = dict(about["settings"]), about.get("stopping")
        if stopping is None:  # it was among the settings once
            stopping = {name: settings.pop(name) for name in ("generations", "patience")}
        made = cls(
            **{
                **about,
                **rows,
                "arch": space.check(Arch.parse(about["arch"])),
                "settings": SearchSettings(**settings),
                "stopping": Stopping(**stopping),
                "history": tuple(map(float, about["history"])),
            }
        )
        if not np.isfinite([made.score, *(limit["predicted"] for limit in made.limits)]).all():
            raise ValueError("a figure is not finite")
        if made.stopped_by not in ("", EXHAUSTED, *RULES):
            raise ValueError("what ended the search is no rule")
        if not all(set(limit) == _LIMIT for limit in made.limits):
            raise ValueError("a limit is incomplete")
        for row in made.front:
            space.check(Arch.parse(row["arch"]))
        return made


def in_words(outcome: Mapping[str, Any]) -> str:
    """What a network is predicted to cost, of what is allowed."""
    unit, lower, upper = outcome["unit"], outcome["lower"], outcome["upper"]
    low = "" if lower is None else f"at least {lower:.4g} {unit}"
    high = "" if upper is None else f"at most {upper:.4g} {unit}"
    allowed = " and ".join(end for end in (low, high) if end) or "any"
    margin = f" (+{outcome['margin_percent']:.2g} % margin)" if outcome["margin_percent"] else ""
    return f"{outcome['predicted']:.4g} {unit}{margin}, allowed {allowed}"


def dumps(results: Sequence[SearchResult]) -> str:
    """One result, or several of one command, as the JSON text of a file."""
    about = {"schema": artifacts.SCHEMA, "kind": KIND}
    content = results[0].to_json() if len(results) == 1 else {"results": [result.to_json() for result in results]}
    return json_text.dumps(json_text.sealed({**about, **content, "made_with": made_with()}))


def write_results(results: Sequence[SearchResult], path: Path | str) -> None:
    """Write results as JSON, or the front of one as `.csv`.

    Raises:
        ArtifactError: it cannot be written, or there is no front.
    """
    path = Path(path)
    if path.suffix != ".csv":
        atomic.write(path, dumps(results))
    elif len(results) == 1 and results[0].front:
        atomic.write(path, results[0].front_csv())
    else:
        raise ArtifactError(f"{path}: only the front of one search is written as CSV, see --front; choose a .json")


def load_results(path: Path | str) -> tuple[SearchResult, ...]:
    """Read the file of one or several results.

    Raises:
        ArtifactError: it is missing or no such file.
    """
    path = Path(path)
    if path.suffix == ".csv":
        raise ArtifactError(f"{path} is a list; search with --out FILE.json for a result that can be read again")
    about = json_text.loads(atomic.read(path), path)
    if about.pop("kind", None) != KIND:
        raise ArtifactError(
            f"{path} is not a search result; make one with: ofa-deploy search --latency 30ms --out result.json"
        )
    schema = about.pop("schema", None)
    if schema not in range(1, artifacts.SCHEMA + 1):
        raise ArtifactError(f"{path} was written by a newer release; upgrade ofa-deploy")
    json_text.check_seal({**about, "kind": KIND, "schema": schema}, path)
    for key in ("made_with", "seal"):
        about.pop(key, None)
    try:
        found = tuple(SearchResult.from_json(one) for one in about.get("results", [about]))
        if not found:
            raise ValueError("it holds none")
        return found
    except (OfaDeployError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}; search again") from error


def load_result(path: Path | str) -> SearchResult:
    """Read the file of one result.

    Raises:
        ArtifactError: see `load_results`; or it holds several.
    """
    found = load_results(path)
    if len(found) > 1:
        raise ArtifactError(f"{path} holds {len(found)} results, one is wanted; export all of them with --family")
    return found[0]
