"""What is to be delivered: for which device, within which budgets, from which files, into which files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ofa_deploy.device.devices import Device, get_device
from ofa_deploy.device.rounds import MeasurePlan
from ofa_deploy.export.formats import FORMATS, format_for
from ofa_deploy.search.budget import parse_latency
from ofa_deploy.search.settings import SearchSettings
from ofa_deploy.spaces.space import SearchSpace


@dataclass(frozen=True)
class DeployJob:
    """What is to be delivered.

    Attributes:
        space: of the supernet.
        budgets: latencies as users type them; a model for each.
        weights: file of the supernet.
        data: name of the images; None finds the space's own.
        device: that the models are for, by name.
        out: folder for the models, their cards and `results_file`.
        settings: of each search.
        plan: of the latency table, should it be built, and of timing.
        margin_percent: by this, predicted latencies are raised before they are compared with a budget; None takes the
            error that 95 % of the table's test networks stay under.

    Raises:
        OfaDeployError: a budget cannot be understood, or nothing that the device runs can be written.
    """

    space: SearchSpace
    budgets: tuple[str, ...]
    weights: Path
    data: str | None = None
    device: str = "cpu"
    out: Path = Path("models")
    settings: SearchSettings = field(default_factory=SearchSettings)
    plan: MeasurePlan = field(default_factory=MeasurePlan)
    margin_percent: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "budgets", tuple(self.budgets))
        for name in ("weights", "out"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        format_for(get_device(self.device))
        for budget in self.budgets:
            parse_latency(budget, 1.0, 2.0)  # a mistyped one is refused before anything is measured

    @property
    def target(self) -> Device:
        """The device's record."""
        return get_device(self.device)

    @property
    def format_name(self) -> str:
        """The format of the files, one of `export.formats.FORMATS`."""
        return format_for(self.target)

    @property
    def files(self) -> dict[str, Path]:
        """The model of each budget."""
        suffix = FORMATS[self.format_name].suffix
        return {budget: self.out / f"{self._stem}_{_in_name(budget)}{suffix}" for budget in self.budgets}

    @property
    def results_file(self) -> Path:
        """Where the results of the searches and what was measured are written."""
        return self.out / f"{self._stem}_results.json"

    @property
    def _stem(self) -> str:
        """What names of files begin with, so that those for several devices lie side by side in one folder."""
        return self.space.name if self.device == "cpu" else f"{self.space.name}_{self.device}"


def _in_name(budget: str) -> str:
    """A budget as a part of a file's name."""
    return budget.strip().replace("%", "pct")
