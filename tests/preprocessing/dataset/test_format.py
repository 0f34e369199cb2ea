"""The dataset format is known in one module, and its paths and JSON are as documented."""

import ast
from pathlib import Path

import pytest

from preprocessing.dataset import format as dataset_format
from preprocessing.dataset.format import encode_json, index_path, shard_path

NAMES = ("MANIFEST", "PLAN", "INPUTS", "REJECTS", "PREVIEW", "FRAMES_SUFFIX")


def string_constants(path: Path) -> set[str]:
    """Return the string literals of a module, without its docstrings."""
    tree = ast.parse(path.read_text())
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements
    }


def test_no_other_module_spells_a_file_name_of_the_format(root: Path) -> None:
    names = {getattr(dataset_format, name) for name in NAMES}
    modules = {
        path for package in ("pipeline", "preprocessing", "cluster", "vdsm") for path in (root / package).rglob("*.py")
    }
    modules.remove(root / "preprocessing" / "dataset" / "format.py")
    modules.remove(root / "pipeline" / "evaluation" / "make_samples.py")  # a program for others, which imports nothing
    found = {str(path): names & string_constants(path) for path in sorted(modules)}
    assert {path: spelled for path, spelled in found.items() if spelled} == {}


@pytest.mark.parametrize(("number", "shard"), [(0, "train/shard-000000.tar"), (1234567, "train/shard-1234567.tar")])
def test_a_shard_and_its_index_have_the_same_stem(number: int, shard: str) -> None:
    assert shard_path("train", number) == shard
    assert index_path(shard) == shard.removesuffix("tar") + "json"


def test_json_is_one_compact_line_in_the_order_of_the_keys() -> None:
    assert encode_json({"b": [1.0, "ä"], "a": None}) == b'{"b":[1.0,"\\u00e4"],"a":null}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json(float("nan"))
