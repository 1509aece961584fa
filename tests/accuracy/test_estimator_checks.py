"""The estimators keep scikit-learn's own contract, on any numeric matrix."""

from collections.abc import Callable
from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from ofa_deploy.accuracy.predictors.ensembles import Ensemble
from ofa_deploy.accuracy.predictors.estimator import Estimator
from ofa_deploy.accuracy.predictors.gp import GP
from ofa_deploy.accuracy.predictors.kinds import RECIPES

QUICK = {"members": 2, "steps": 200, "weight_decay": 0.3}
REPETITIONS = "weights are inverse variances of noise, not repetitions: a label of weight 2 is one label, not two"
SINGLE_PRECISION = "without the deviation the mean is computed in float32, which may round by the size of a batch"


def expected_failed_checks(estimator: Estimator) -> dict[str, str]:
    checks = {
        "check_sample_weight_equivalence_on_dense_data": REPETITIONS,
    }
    if isinstance(estimator.recipe, GP):
        checks["check_methods_sample_order_invariance"] = SINGLE_PRECISION
        checks["check_methods_subset_invariance"] = SINGLE_PRECISION
    return checks


QUICK_RECIPES = [kind(**QUICK) if issubclass(kind, Ensemble) else kind() for kind in RECIPES.values()]


@parametrize_with_checks([Estimator(recipe) for recipe in QUICK_RECIPES], expected_failed_checks=expected_failed_checks)
def test_scikit_learn_contract(estimator: Estimator, check: Callable[[Any], None]) -> None:
    check(estimator)
