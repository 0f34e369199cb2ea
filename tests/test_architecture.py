"""What the repository promises about itself."""

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ("pipeline", "preprocessing", "cluster", "vdsm")


def modules(root: Path, package: str) -> list[str]:
    """Names of all modules of a package."""
    found = sorted((root / package).rglob("*.py"))
    return [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in found]


def texts(root: Path) -> list[Path]:
    """Everything that is written here by hand and tracked, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".html", ".j2", ".cfg", ""}
    paths = [root / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def test_imports_only_go_down(root: Path) -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


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
    # None in sys.modules makes an import fail as if the library were not installed
    code = (
        f"import importlib, sys; sys.modules.update(dict.fromkeys({absent}))\n"
        f"for name in {names}: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_module_is_typed_and_none_is_a_drawer(root: Path) -> None:
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            assert path.stem not in ("utils", "helpers", "misc", "common"), path


def test_files_hold_one_idea_each(root: Path) -> None:
    long = {
        str(path.relative_to(root)): count
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 330
    }
    assert long == {}


def test_no_text_names_a_path_of_the_machine_it_was_written_on(root: Path) -> None:
    # put together here so that this file does not name them either
    # /home/ray and /tmp/ray are places of Ray's image and of Ray itself, the same everywhere
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


def test_everything_that_is_imported_is_a_declared_dependency(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=!~ ]", text)[0].lower() for text in project["dependencies"]}
    distribution_of = {
        "markupsafe": "jinja2",
        "pyro": "pyro-ppl",
        "yaml": "pyyaml",
        "PIL": "pillow",
        "botocore": "boto3",
        "av": "imageio",
    }
    extras = {
        re.split(r"[\[<>=!~ ]", text)[0].lower()
        for group in project["optional-dependencies"].values()
        for text in group
    }
    at_once, inside = set(), set()
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                found = at_once if getattr(node, "col_offset", 0) == 0 else inside
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    own = set(sys.stdlib_module_names) | set(PACKAGES)
    assert {distribution_of.get(name, name).lower() for name in at_once - own} <= declared
    # What is imported when it is needed may be an extra.
    assert {distribution_of.get(name, name).lower() for name in inside - own} <= declared | extras


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
    for requirement in map(Requirement, itertools.chain(*groups)):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    assert pinned["torch"] == "2.13.0"
    assert not {"s3fs", "antialiased-cnns"} & set(pinned)  # pins an older botocore; not for commercial use
