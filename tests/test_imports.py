"""The direction of imports, and what the search does without."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ofa_deploy"
ROWS = [  # a module imports only from its own row and rows above
    ["ofa_deploy", "errors"],
    ["ops", "artifacts", "outputs", "partials", "progress", "arch", "downloads", "figures", "npz"],
    ["parts", "costs"],
    ["space"],
    ["extremes"],
    ["families", "official", "data", "arch_lists", "torch_files"],
    ["inventory"],
    ["latency", "accuracy", "supernet", "search", "export", "graphs", "report"],  # their __init__ alone
    ["latency.device", "latency.device.timing"],
    ["latency.device.onnxruntime", "latency.device.tflite", "latency.device.torch"],
    ["latency.device.conditions", "latency.device.rounds", "latency.device.adb"],
    ["latency.device.runner", "latency.estimates"],
    ["latency.table", "accuracy.samples", "accuracy.predictors", "accuracy.predictors.inference"],
    ["accuracy.predictors.official", "accuracy.predictors.gains", "accuracy.predictors.predictor"],
    ["search.budget", "search.knapsack", "search.front", "search.variation"],
    ["search.limits", "search.seeds", "search.evolve", "search.polish", "search.memetic", "search.result"],
    ["search.program", "search.certify", "score"],
    ["search.run", "search.files"],
    ["accuracy.predictors.estimator", "accuracy.predictors.members"],
    [f"accuracy.predictors.{name}" for name in ("ridge", "gp", "concave", "mlp", "published")],
    ["accuracy.predictors.official_files"],
    [f"accuracy.predictors.{name}" for name in ("evaluate", "sources", "plot", "fit")],
    ["graphs.weights", "graphs.onnx", "graphs.tflite"],
    ["graphs.onnx_int8", "graphs.tflite_int8", "graphs.torch"],
    ["supernet.recipes", "supernet.depthwise", "supernet.processes"],
    ["supernet.layers", "supernet.elastic", "supernet.network", "supernet.recalibration", "supernet.checkpoint"],
    ["latency.runtimes"],
    ["latency.smooth"],
    ["latency.calibration"],
    ["supernet.pretrained", "supernet.batches", "supernet.train", "latency.imported", "latency.fitted"],
    ["latency.adaptive"],
    ["latency.build"],
    ["latency.bundle", "latency.networks", "latency.remote", "latency.whole"],
    ["accuracy.designs", "accuracy.prefixes", "accuracy.measure", "accuracy.workers", "accuracy.sampling"],
    ["search.verify"],
    ["search.refine"],
    ["export.formats", "export.finetune"],
    ["export.check", "export.memory"],
    ["export.card", "export.run", "export.family"],
    ["deploy", "doctor"],
    ["report.markup"],
    ["report.axes", "report.networks", "report.material"],
    ["report.charts"],
    ["report.sections"],
    ["report.evidence"],
    ["report.page"],
    ["cli.options"],
    ["cli.views"],
    ["cli.supernets", "cli.accuracy", "cli.models", "cli.searches", "cli.tables", "cli"],
    ["__main__"],
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def row_of(module: str) -> int:
    name = module.removeprefix("ofa_deploy.")
    for number, row in enumerate(ROWS):
        if name in row:
            return number
    raise AssertionError(f"{module} has no row: add it to ROWS")


def imports(path: Path) -> set[str]:
    found = set()
    tree = ast.parse(path.read_text())
    for_types = {  # is not run
        inside
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inside in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = PACKAGE.parent / Path(*node.module.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").exists()
                found.add(f"{node.module}.{alias.name}" if is_module else node.module)
    return {name for name in found if name.split(".")[0] == "ofa_deploy"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_to_rows_above(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for name in imports(path):
        assert row_of(name) <= row_of(module), f"{module} imports {name}"


def test_search_needs_neither_torch_nor_runtimes() -> None:
    code = (
        "import sys, ofa_deploy.search.files, ofa_deploy.report.page, ofa_deploy.doctor, ofa_deploy.cli;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'sklearn', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
