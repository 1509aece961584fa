"""Search, specialise and deploy once-for-all networks.

The public names are those of `__all__`; each is loaded from its module when it is first asked for, so that importing
this package loads nothing else. They are described, with examples, in docs/api.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ofa_deploy.version import __version__ as __version__

if TYPE_CHECKING:
    from ofa_deploy.accuracy.measure import count_correct
    from ofa_deploy.accuracy.predictors import AccuracyPredictor
    from ofa_deploy.accuracy.predictors.fit import Fitted, fit_predictor
    from ofa_deploy.accuracy.predictors.model import Model
    from ofa_deploy.accuracy.predictors.predictor import Predictor
    from ofa_deploy.accuracy.predictors.sources import Merged
    from ofa_deploy.accuracy.samples import Samples
    from ofa_deploy.accuracy.sampling import SamplingPlan, sample_accuracies
    from ofa_deploy.accuracy.workers import Workers
    from ofa_deploy.data.dataset import Dataset, Images
    from ofa_deploy.data.loading import load_data
    from ofa_deploy.delivery.deploy import deploy_models
    from ofa_deploy.delivery.deploy_job import DeployJob
    from ofa_deploy.delivery.deployed import Deployed
    from ofa_deploy.delivery.loop import SearchPlan
    from ofa_deploy.delivery.verification import find_verified_network
    from ofa_deploy.device.devices import Device
    from ofa_deploy.device.rounds import MeasurePlan
    from ofa_deploy.device.timing import Session
    from ofa_deploy.errors import InfeasibleError, OfaDeployError
    from ofa_deploy.export.run import export_model
    from ofa_deploy.files.artifacts import find_artifact
    from ofa_deploy.files.journals import Journal
    from ofa_deploy.latency.build import TableJob, build_table
    from ofa_deploy.latency.machine_state import Estimate
    from ofa_deploy.latency.table import LatencyTable
    from ofa_deploy.search.limits import Limit, cost_limit, latency_limit
    from ofa_deploy.search.problem import Problem
    from ofa_deploy.search.result import SearchResult, load_result, write_results
    from ofa_deploy.search.result_records import (
        Candidate,
        Certificate,
        FrontPoint,
        LimitOutcome,
        MeasuredAccuracy,
        Refined,
        RefinedRound,
        Verified,
    )
    from ofa_deploy.search.run import find_network
    from ofa_deploy.search.settings import SearchSettings
    from ofa_deploy.search.stopping import Stopping
    from ofa_deploy.spaces.arch import Arch
    from ofa_deploy.spaces.costs import AdditiveCost, SmoothMaximum
    from ofa_deploy.spaces.encoding import FeatureLayout
    from ofa_deploy.spaces.families import get_space
    from ofa_deploy.spaces.ops import Op
    from ofa_deploy.spaces.parts import Layer, Place, Stage
    from ofa_deploy.spaces.space import SearchSpace
    from ofa_deploy.supernet.checkpoint import load_subnet, load_supernet
    from ofa_deploy.supernet.network import Subnet, Supernet
    from ofa_deploy.supernet.processes import Processes
    from ofa_deploy.supernet.recipes import Phase, Recipe, get_recipe
    from ofa_deploy.supernet.training import train_supernet

__all__ = [
    "AccuracyPredictor",
    "AdditiveCost",
    "Arch",
    "Candidate",
    "Certificate",
    "Dataset",
    "DeployJob",
    "Deployed",
    "Device",
    "Estimate",
    "FeatureLayout",
    "Fitted",
    "FrontPoint",
    "Images",
    "InfeasibleError",
    "Journal",
    "LatencyTable",
    "Layer",
    "Limit",
    "LimitOutcome",
    "MeasurePlan",
    "MeasuredAccuracy",
    "Merged",
    "Model",
    "OfaDeployError",
    "Op",
    "Phase",
    "Place",
    "Predictor",
    "Problem",
    "Processes",
    "Recipe",
    "Refined",
    "RefinedRound",
    "Samples",
    "SamplingPlan",
    "SearchPlan",
    "SearchResult",
    "SearchSettings",
    "SearchSpace",
    "Session",
    "SmoothMaximum",
    "Stage",
    "Stopping",
    "Subnet",
    "Supernet",
    "TableJob",
    "Verified",
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

_MODULES = {
    "accuracy.measure": ("count_correct",),
    "accuracy.predictors": ("AccuracyPredictor",),
    "accuracy.predictors.fit": (
        "Fitted",
        "fit_predictor",
    ),
    "accuracy.predictors.model": ("Model",),
    "accuracy.predictors.predictor": ("Predictor",),
    "accuracy.predictors.sources": ("Merged",),
    "accuracy.samples": ("Samples",),
    "accuracy.sampling": (
        "SamplingPlan",
        "sample_accuracies",
    ),
    "accuracy.workers": ("Workers",),
    "data.dataset": (
        "Dataset",
        "Images",
    ),
    "data.loading": ("load_data",),
    "delivery.deploy": ("deploy_models",),
    "delivery.deploy_job": ("DeployJob",),
    "delivery.deployed": ("Deployed",),
    "delivery.loop": ("SearchPlan",),
    "delivery.verification": ("find_verified_network",),
    "device.devices": ("Device",),
    "device.rounds": ("MeasurePlan",),
    "device.timing": ("Session",),
    "errors": (
        "InfeasibleError",
        "OfaDeployError",
    ),
    "export.run": ("export_model",),
    "files.artifacts": ("find_artifact",),
    "files.journals": ("Journal",),
    "latency.build": (
        "TableJob",
        "build_table",
    ),
    "latency.machine_state": ("Estimate",),
    "latency.table": ("LatencyTable",),
    "search.limits": (
        "Limit",
        "cost_limit",
        "latency_limit",
    ),
    "search.problem": ("Problem",),
    "search.result": (
        "SearchResult",
        "load_result",
        "write_results",
    ),
    "search.result_records": (
        "Candidate",
        "Certificate",
        "FrontPoint",
        "LimitOutcome",
        "MeasuredAccuracy",
        "Refined",
        "RefinedRound",
        "Verified",
    ),
    "search.run": ("find_network",),
    "search.settings": ("SearchSettings",),
    "search.stopping": ("Stopping",),
    "spaces.arch": ("Arch",),
    "spaces.costs": (
        "AdditiveCost",
        "SmoothMaximum",
    ),
    "spaces.encoding": ("FeatureLayout",),
    "spaces.families": ("get_space",),
    "spaces.ops": ("Op",),
    "spaces.parts": (
        "Layer",
        "Place",
        "Stage",
    ),
    "spaces.space": ("SearchSpace",),
    "supernet.checkpoint": (
        "load_subnet",
        "load_supernet",
    ),
    "supernet.network": (
        "Subnet",
        "Supernet",
    ),
    "supernet.processes": ("Processes",),
    "supernet.recipes": (
        "Phase",
        "Recipe",
        "get_recipe",
    ),
    "supernet.training": ("train_supernet",),
}
"""The module of each public name, which is defined there under that name."""


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
