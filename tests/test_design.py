"""The rules of the design that code can break without any other test noticing."""

import ast
import subprocess
import sys
from pathlib import Path

import doppel_ray

PACKAGE = Path(doppel_ray.__file__).parent

GROUND_FLOOR = (
    "synth",
    "analyze",
    "analyze.__main__",
    "audio",
    "audio.descriptors",
    "audio.files",
    "audio.windows",
    "models",
    "models.batchnorm",
    "models.clips",
    "objectives",
    "optim",
    "pairs",
    "recordings",
    "recordings.catalogue",
    "checkpoint",
    "learner",
    "lineage",
    "hold",
    "keep",
    "storage",
    "notices",
    "hear",
    "export",
    "embed",
    "figure",
    "energy",
    "output",
    "board",
    "report",
    "report.page",
    "probe",
    "probe.task",
    "probe.tasks",
    "probe.sounds",
    "probe.metrics",
    "probe.protocols",
    "probe.baselines",
    "probe.embed",
    "probe.evaluate",
    "probe.projector",
    "probe.fetch",
    "section",
    "search",
    "points",
    "tree",
    "resources",
)


def test_the_ground_floor_imports_where_there_is_no_ray() -> None:
    imports = "\n".join(f"import doppel_ray.{module}" for module in GROUND_FLOOR)
    code = f"import sys\nsys.modules['ray'] = None\n{imports}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def test_nothing_is_unpickled_but_by_torch_load_with_weights_only() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{file}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(names), f"{file}:{node.lineno}"
