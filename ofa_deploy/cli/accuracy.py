"""Commands for accuracies: measuring, fitting, predicting."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ofa_deploy.accuracy.predictors.kinds import RECIPES
from ofa_deploy.cli.options import AsJson, Data, Seed, Space, Weights, aligned, predictor_of, space_of, weights_of
from ofa_deploy.spaces.families import get_space

logger = logging.getLogger(__name__)


def sample(
    *,
    space: Space = None,
    data: Data = None,
    weights: Weights = None,
    number: Annotated[int, typer.Option(help="Distinct subnetworks to measure.")] = 1000,
    design: Annotated[
        str, typer.Option(help="uniform, or trie: several times cheaper each, but less worth.")
    ] = "uniform",
    out: Annotated[Path | None, typer.Option(help="CSV file; default: predictors/SPACE_samples.csv.")] = None,
    seed: Seed = 0,
    until_flat: Annotated[
        bool, typer.Option("--until-flat", help="Stop before --number when more no longer help a predictor.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes, each of one thread.", min=1)] = 2,
    batch: Annotated[
        int | None, typer.Option(help="Images run at once; fewer need less memory. Default: what is fastest.", min=1)
    ] = None,
    backend: Annotated[str, typer.Option(help="Who measures: loky (this machine), dask or ray (a cluster).")] = "loky",
    address: Annotated[str | None, typer.Option(help="The cluster's, such as tcp://10.0.0.1:8786.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of random subnetworks. Killed at any moment, it goes on where it was.

    The workers of a cluster must find the weights and images at the same paths as this machine.

    Example: ofa-deploy sample --number 1000
    """
    from ofa_deploy.accuracy.samples import file_name
    from ofa_deploy.accuracy.sampling import SamplingPlan, sample_accuracies
    from ofa_deploy.accuracy.workers import Workers

    searched = get_space(space)
    path = out or Path("predictors") / file_name(searched)
    workers = Workers(jobs, backend, address)
    samples = sample_accuracies(
        weights_of(weights, searched),
        searched,
        plan=SamplingPlan(number, seed, design, until_flat=until_flat),
        data=data,
        workers=workers,
        out=path,
        batch=batch,
    )
    percent = samples.top1_percent
    if as_json:
        ends = {"lowest": float(percent.min()), "highest": float(percent.max())}
        print(json.dumps({"file": str(path), "number": len(samples), "top1_percent": ends}))
        return
    logger.info(f"{len(samples)} subnetworks, top-1 {percent.min():.2f} to {percent.max():.2f} %")
    print(path)


def fit_predictor(
    *,
    space: Space = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option(help="CSV of samples, may be given several times; default: predictors/SPACE_samples.csv."),
    ] = None,
    model: Annotated[str, typer.Option(help=f"auto, or one of {', '.join(RECIPES)}.")] = "auto",
    apart: Annotated[Path | None, typer.Option(help="CSV of samples that are not fitted, only predicted.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the samples come from, for the predictor's JSON.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: predictors/SPACE.safetensors.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; default: one a core.", min=1)] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit the accuracy predictor on measured subnetworks. Its errors are on those that were left out of a fit.

    A CSV measured elsewhere has the columns arch (or once-for-all's ks, e, d, r) and top1_percent. Several are several
    pipelines that measured the same supernet: predictions are on the scale of the first.

    Example: ofa-deploy fit-predictor --samples mine.csv
    """
    from ofa_deploy.accuracy.predictors import file_name
    from ofa_deploy.accuracy.predictors.fit import fit_file

    searched = get_space(space)
    path = out or Path("predictors") / file_name(searched)
    record = fit_file(searched, samples or [], out=path, model=model, seed=seed, apart=apart, source=source, jobs=jobs)
    if as_json:
        print(json.dumps({"file": str(path), **record}))
        return
    for line in _fitted(record):
        logger.info(line)
    logger.info(f"plot: {path.with_suffix('.png')}")
    print(path)


def _fitted(record: Mapping[str, Any]) -> Iterator[str]:
    """What `fit-predictor` says of a predictor by its JSON, a line each."""
    yield _compared(record["models"])
    first, *others = record["samples"]
    for samples in others:
        yield (
            f"{samples['file']} reads {samples['offset_points']:+.2f} points against the first, its noise is "
            f"{samples['noise_points']:.2f} points against {first['noise_points']:.2f}"
        )
    if noise := record["label_noise"]:
        yield (
            f"noise of the measured accuracies: {noise['heldout_points']:.3f} points from the held-out images, "
            f"{noise['recalibration_points']:.3f} from those for recalibration"
        )
    if apart := record["apart"]:
        errors = ", ".join(f"{name} {value}" for name, value in apart.items() if name != "file")
        yield f"on {apart['file']}: {errors}"
    yield f"chosen: {record['model']}, now fitted on all {record['error']['fitted']:.0f} samples"


def import_predictor(
    *,
    file: Annotated[Path, typer.Argument(help="An official accuracy predictor, as torch.save wrote it.")],
    space: Annotated[str, typer.Option(help="Search space.")] = "mbv3-w1.2",
    out: Annotated[Path | None, typer.Option(help="File to write; default: predictors/SPACE.safetensors.")] = None,
) -> None:
    """Convert an official accuracy predictor. Nothing that is in the file (acc_predictor.pth) is run.

    Example: ofa-deploy import-predictor acc_predictor.pth
    """
    from ofa_deploy.accuracy.predictors import file_name
    from ofa_deploy.accuracy.predictors.official_files import convert

    searched = get_space(space)
    path = out or Path("predictors") / file_name(searched)
    convert(file, searched, path)
    print(path)


def predict(
    *,
    archs: Annotated[Path, typer.Argument(help="CSV or JSON with arch, or once-for-all's ks, e, d, r.")],
    space: Space = None,
    predictor: Annotated[Path | None, typer.Option(help="Default: predictors/SPACE.safetensors.")] = None,
    lut: Annotated[Path | None, typer.Option(help="Latency table, for a latency as well.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the CSV here instead of printing it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a list of architectures. MACs, parameters, predicted top-1 with its 90 % interval, and latency.

    Example: ofa-deploy predict archs.csv --lut lut/mine.csv
    """
    from ofa_deploy.files.csv_text import records_csv
    from ofa_deploy.views.scores import score_file

    searched = space_of(space, lut)
    rows = score_file(searched, archs, predictor_of(predictor, searched), lut, out)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print(records_csv(rows) if out is None else out, end="" if out is None else "\n")


def _compared(models: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a row a model and a column a kind of error."""
    headings = {
        "rmse_points": "RMSE, points",
        "kendall_tau": "Kendall",
        "spearman_rho": "Spearman",
        "kendall_tau_within_resolution": "Kendall, one resolution",
        "coverage90_percent": "in 90 % interval",
    }
    shown = [key for key in headings if any(key in errors for errors in models.values())]
    rows = [["each sample predicted unseen", *(headings[key] for key in shown)]]
    for name, errors in models.items():
        rows.append([name, *(f"{errors[key]:.3f}" if key in errors else "-" for key in shown)])
    return aligned(rows)
