"""A concave function of an architecture: its maximum under a latency table can be proved.

Of scaled features z, whose costs are multiply-accumulates and parameters themselves, not their logarithms,

    member(z) = slope . z + level - sum_j softplus(drop_j) relu(units_j . z + offsets_j)
    mean(z) = mean of the members          variance(z) = their variance + noise^2

At one resolution z is linear in the choices of an architecture. So maximising the mean, which is concave as well, under
an additive latency is a mixed-integer linear program whose only binaries are those choices (see `ConcavePieces`).

Gains are exact: nothing follows the units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.accuracy.predictors.dense import side_by_side
from ofa_deploy.accuracy.predictors.ensembles import Ensemble
from ofa_deploy.accuracy.predictors.gains import ChangeTable, RectifiedUnits
from ofa_deploy.accuracy.predictors.model import Array, Gains, Labels, Model, scaling, unexplained
from ofa_deploy.spaces.costs import Floats, Genes
from ofa_deploy.spaces.encoding import FeatureLayout, changed_numbers, features
from ofa_deploy.spaces.space import SearchSpace


@dataclass(frozen=True)
class ConcavePieces:
    """The mean as `level + slope . x - drop . relu(x units + offsets)`, in percent, of features that are not scaled.

    The last columns of x are costs themselves, as `with_linear_costs` gives them.

    Attributes:
        level: in percent.
        slope: shape (f,).
        units: shape (f, units).
        offsets: shape (units,).
        drop: not negative, shape (units,).
    """

    level: float
    slope: Floats
    units: Floats
    offsets: Floats
    drop: Floats


class ConcaveModel(Model):
    """The mean and variance on top of this file."""

    def moments(self, x: Array, *, spread: bool) -> tuple[Floats, Floats]:
        """Mean and variance in units of the target, shape (n,) each, from features of shape (n, f)."""
        arrays, h = self.arrays, self.scaled(with_linear_costs(x, self.layout))
        hidden = np.maximum(h @ arrays["units"] + arrays["offsets"], 0)  # (members, n, units)
        each = h @ arrays["slope"] + arrays["level"] - hidden @ np.logaddexp(0, arrays["drop"])
        return each[..., 0].mean(axis=0), each[..., 0].var(axis=0)

    def gains(self, space: SearchSpace) -> Gains:
        """A function from genes to the gains of all single changes, exact."""
        table = ChangeTable(
            space,
            lambda genes: with_linear_costs(features(space, genes), self.layout),
            lambda genes: with_linear_costs(changed_numbers(space, genes), self.layout),
        )
        units = RectifiedUnits(table, *side_by_side(self.arrays, "units", "offsets"))
        slope = self.arrays["slope"].mean(axis=0).T / self.arrays["scale"]
        drop = -np.logaddexp(0, self.arrays["drop"]).reshape(1, -1) / len(self.arrays["drop"])

        def gained(genes: Genes) -> Floats:
            moves = table.of(genes)
            through_units = units.gains(moves, units.received(moves.x), drop)
            return self.points(moves.along(slope) + through_units)

        return gained

    @property
    def pieces(self) -> ConcavePieces:
        """What a linear program needs of the mean."""
        a = {name: np.asarray(array, np.float64) for name, array in self.arrays.items()}
        shift, (mean, deviation) = a["shift"] / a["scale"], a["target"]
        slope = a["slope"][..., 0].mean(axis=0) * deviation
        return ConcavePieces(
            level=float(a["level"].mean() * deviation + mean - shift @ slope),
            slope=slope / a["scale"],
            units=np.concatenate(a["units"] / a["scale"][:, None], axis=1),
            offsets=(a["offsets"][:, 0] - shift @ a["units"]).ravel(),
            drop=np.logaddexp(0, a["drop"]).ravel() * (deviation / len(a["units"])),
        )


@dataclass(frozen=True, kw_only=True)
class Concave(Ensemble):
    """Several such functions from their own initial units, and their mean.

    Attributes:
        members: functions.
        units: of each function.
        steps: of the optimiser.
        lr: highest learning rate.
    """

    members: int = 8
    units: int = 8
    steps: int = 3000
    lr: float = 1e-2

    def fit(self, labels: Labels) -> ConcaveModel:
        """The model of standardised labels."""
        import torch
        from torch import Tensor
        from torch.nn import functional as F

        inputs = with_linear_costs(labels.x, labels.layout)
        model = ConcaveModel(scaling(inputs, labels.layout), labels.layout)
        generator = torch.Generator().manual_seed(self.seed)
        n, f, u = self.members, inputs.shape[1], self.units
        slope, level = torch.zeros(n, f, 1, requires_grad=True), torch.zeros(n, 1, 1, requires_grad=True)
        units = (torch.randn((n, f, u), generator=generator) / f**0.5).requires_grad_()
        offsets = torch.zeros(n, 1, u, requires_grad=True)
        drop = torch.full((n, u, 1), -1.0, requires_grad=True)

        def forward(h: Tensor) -> Tensor:
            hidden = torch.relu(torch.baddbmm(offsets, h, units))
            return (torch.baddbmm(level, h, slope) - hidden @ F.softplus(drop)).squeeze(2)

        named = {"slope": slope, "level": level, "units": units, "offsets": offsets, "drop": drop}
        self.train(forward, list(named.values()), model.scaled(inputs), labels)
        model = model.with_arrays({name: value.detach().numpy() for name, value in named.items()})
        return model.with_arrays({"noise": unexplained(model, labels)})


def with_linear_costs(x: Array, layout: FeatureLayout) -> Array:
    """Features, or their numbers alone, with the costs themselves, which are sums over the choices of a network."""
    costs = x.shape[-1] - (layout.costs.stop - layout.costs.start)
    return np.concatenate([x[..., :costs], 10.0 ** x[..., costs:].astype(np.float64)], axis=-1)
