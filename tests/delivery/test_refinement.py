"""The active loop, with accuracies that are arithmetic: nothing is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.accuracy.predictors.fit import fit_predictor
from ofa_deploy.accuracy.predictors.predictor import Predictor
from ofa_deploy.accuracy.samples import Samples
from ofa_deploy.delivery.loop import SearchPlan
from ofa_deploy.delivery.refinement import NUMBER, Refit, _joined, _samples_of, search_refined
from ofa_deploy.errors import ArtifactError, OfaDeployError
from ofa_deploy.files import atomic
from ofa_deploy.search.limits import cost_limit
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.result import SearchResult
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.search.stopping import Stopping
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.network import Supernet

QUICK, SHORT = SearchSettings(population=20, restarts=1, recombinations=5), Stopping(generations=5)


def truth(space: SearchSpace, genes: Genes) -> Floats:
    """Top-1 in percent: it grows with the MACs, but networks of many 7x7 windows are far worse than others."""
    sevens = (genes[:, 1:] > 6).mean(axis=1)
    return np.asarray(80 + 2 * np.log10(space.macs(genes)) - 20 * np.maximum(sevens - 0.3, 0))


def refit(samples: Samples) -> Predictor:
    return fit_predictor([samples], "ridge", jobs=1).predictor


def run(space: SearchSpace, rounds: int, kept: list[Samples]) -> SearchResult:
    genes = space.sample(np.random.default_rng(0), 40)
    known = Samples(space, genes, truth(space, genes), weights_sha256="ab")

    def accuracies(archs: Sequence[Arch]) -> list[tuple[float, float]]:
        return [(round(float(top), 4), 0.5) for top in truth(space, space.genes(archs))]

    return search_refined(
        Problem(space, [cost_limit(space, "macs", budget="70%")], refit(known)),
        known,
        accuracies,
        Refit(refit, kept.append),
        rounds=rounds,
        plan=SearchPlan(QUICK, SHORT, risk=0.0),
    )


def test_measuring_the_front_finds_better_networks(space: SearchSpace, lines: list[str]) -> None:
    kept: list[Samples] = []
    found, once = run(space, 3, kept), run(space, 1, [])
    assert found.stopping == SHORT
    refined = found.refined
    assert refined is not None
    assert [comparison.number for comparison in refined.rounds] == [1, 2, 3]
    assert [len(samples) for samples in kept] == [40 + NUMBER, 40 + 2 * NUMBER, 40 + 3 * NUMBER]
    assert kept[-1].top1_percent == pytest.approx(truth(space, kept[-1].genes), abs=1e-4)
    assert len(np.unique(kept[-1].genes, axis=0)) == len(kept[-1]), "no network is measured twice"
    first, last = (comparison.bias_points for comparison in (refined.rounds[0], refined.rounds[-1]))
    assert abs(last) < abs(first), "the predictor learns what it was wrong about"
    assert any("round 2" in line for line in lines)
    (chosen,) = refined.final.networks
    assert chosen.arch == found.arch
    assert chosen.measured_top1_percent == pytest.approx(truth(space, space.genes([found.arch]))[0], abs=1e-3)
    best_once = truth(space, space.genes([once.arch]))[0]
    assert truth(space, space.genes([found.arch]))[0] >= best_once


def test_samples_are_those_of_the_weights(space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sums = []
    for name in ("mine", "other"):
        checkpoint.save(tmp_path / f"{name}.safetensors", Supernet(space), {"note": name})
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
        sums.append(atomic.sha256(tmp_path / f"{name}.safetensors"))
    genes = space.sample(np.random.default_rng(0), 40)
    known = Samples(space, genes, truth(space, genes))
    known.save(Path("predictors/fmnist_samples.csv"), {"weights_sha256": sums[1]})
    known.save(Path("predictors/fmnist-mine_samples.csv"), {"weights_sha256": sums[0]})
    assert _samples_of(tmp_path / "mine.safetensors", space).weights_sha256 == sums[0]
    Path("predictors/fmnist-mine_samples.csv").unlink()
    Path("predictors/fmnist-mine_samples.json").unlink()
    with pytest.raises(ArtifactError, match=r"no samples .* are of the weights .*mine.safetensors; run ofa-deploy sam"):
        _samples_of(tmp_path / "mine.safetensors", space)


def test_samples_of_earlier_rounds_are_added(space: SearchSpace) -> None:
    genes = space.sample(np.random.default_rng(0), 40)
    own, more = (Samples(space, g, truth(space, g), weights_sha256="a") for g in (genes[:30], genes[20:]))
    assert (_joined(own, more).genes == genes).all()
    assert _joined(own, replace(more, weights_sha256="b")) is own


def test_rounds_are_checked(space: SearchSpace) -> None:
    with pytest.raises(OfaDeployError, match="at least 1 round"):
        run(space, 0, [])
