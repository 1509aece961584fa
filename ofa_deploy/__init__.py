"""Search, specialise and deploy once-for-all networks.

The public names are those of `__all__`; each is loaded from its module when it is first asked for, so that importing
this package loads nothing else. They are described, with examples, in docs/api.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa_deploy.accuracy.measure import count_correct
    from ofa_deploy.accuracy.predictors.fit import fit as fit_predictor
    from ofa_deploy.accuracy.predictors.predictor import Predictor
    from ofa_deploy.accuracy.samples import Samples
    from ofa_deploy.accuracy.sampling import sample as sample_accuracies
    from ofa_deploy.accuracy.workers import Workers
    from ofa_deploy.data.dataset import load as load_data
    from ofa_deploy.delivery.deploy import deploy as deploy_models
    from ofa_deploy.delivery.verification import search_verified as find_verified_network
    from ofa_deploy.device.rounds import Plan
    from ofa_deploy.errors import InfeasibleError, OfaDeployError
    from ofa_deploy.export.run import export as export_model
    from ofa_deploy.files.artifacts import find as find_artifact
    from ofa_deploy.latency.build import Job
    from ofa_deploy.latency.build import build as build_table
    from ofa_deploy.latency.table import LatencyTable
    from ofa_deploy.search.evolution import Settings
    from ofa_deploy.search.limits import cost_limit, latency_limit
    from ofa_deploy.search.result import SearchResult, load_result
    from ofa_deploy.search.result import write as write_results
    from ofa_deploy.search.run import search as find_network
    from ofa_deploy.spaces.arch import Arch
    from ofa_deploy.spaces.families import get_space
    from ofa_deploy.spaces.space import SearchSpace
    from ofa_deploy.supernet.checkpoint import load as load_supernet
    from ofa_deploy.supernet.checkpoint import load_subnet
    from ofa_deploy.supernet.recipes import get_recipe
    from ofa_deploy.supernet.training import train as train_supernet

__version__ = "0.1.0"
__all__ = [
    "Arch",
    "InfeasibleError",
    "Job",
    "LatencyTable",
    "OfaDeployError",
    "Plan",
    "Predictor",
    "Samples",
    "SearchResult",
    "SearchSpace",
    "Settings",
    "Workers",
    "build_table",
    "cost_limit",
    "count_correct",
    "deploy_models",
    "export_model",
    "find_artifact",
    "find_network",
    "find_verified_network",
    "fit_predictor",
    "get_recipe",
    "get_space",
    "latency_limit",
    "load_data",
    "load_result",
    "load_subnet",
    "load_supernet",
    "sample_accuracies",
    "train_supernet",
    "write_results",
]

_PLACES = {
    "accuracy.measure": {"count_correct": "count_correct"},
    "accuracy.predictors.fit": {"fit_predictor": "fit"},
    "accuracy.predictors.predictor": {"Predictor": "Predictor"},
    "accuracy.samples": {"Samples": "Samples"},
    "accuracy.sampling": {"sample_accuracies": "sample"},
    "accuracy.workers": {"Workers": "Workers"},
    "spaces.arch": {"Arch": "Arch"},
    "files.artifacts": {"find_artifact": "find"},
    "data.dataset": {"load_data": "load"},
    "delivery.deploy": {"deploy_models": "deploy"},
    "errors": {"InfeasibleError": "InfeasibleError", "OfaDeployError": "OfaDeployError"},
    "export.run": {"export_model": "export"},
    "spaces.families": {"get_space": "get_space"},
    "latency.build": {"Job": "Job", "build_table": "build"},
    "device.rounds": {"Plan": "Plan"},
    "latency.table": {"LatencyTable": "LatencyTable"},
    "search.evolution": {"Settings": "Settings"},
    "search.limits": {"cost_limit": "cost_limit", "latency_limit": "latency_limit"},
    "search.result": {"SearchResult": "SearchResult", "load_result": "load_result", "write_results": "write"},
    "search.run": {"find_network": "search"},
    "delivery.verification": {"find_verified_network": "search_verified"},
    "spaces.space": {"SearchSpace": "SearchSpace"},
    "supernet.checkpoint": {"load_subnet": "load_subnet", "load_supernet": "load"},
    "supernet.recipes": {"get_recipe": "get_recipe"},
    "supernet.training": {"train_supernet": "train"},
}
"""Where each public name is, and what it is called there."""


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), names[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
