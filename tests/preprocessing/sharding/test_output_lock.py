"""An output belongs to the settings and inputs it was created with; a refusal names what changed."""

import dataclasses
from pathlib import Path

import pytest

from cluster.errors import UserError
from preprocessing.clip import Item
from preprocessing.recipe import DataRecipe
from preprocessing.sharding.output_lock import acquire_output
from preprocessing.sharding.plan import Plan, make_plan
from tests.preprocessing.sharding.test_plan import Listed


def inputs(count: int) -> list[Item]:
    return [
        Item(
            key=f"k{n}",
            split="test" if n % 3 == 0 else "train",
            estimated_bytes=10,
            path=f"cam/{n}.mp4",
            version=f"v{n}",
        )
        for n in range(count)
    ]


def planned(items: list[Item], seed: int = 0) -> Plan:
    return make_plan(DataRecipe(seed=seed), Listed(items))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output that was acquired with ten inputs."""
    acquire_output(str(tmp_path), planned(inputs(10)))
    return tmp_path


def test_the_same_inputs_in_another_order_are_accepted(output: Path) -> None:
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    acquire_output(str(output), planned(inputs(10)[::-1]))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert before.keys() == {"plan.json", "inputs.jsonl"}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (inputs(12), "inputs added: cam/10.mp4, cam/11.mp4;"),
        (inputs(9), "inputs removed: cam/9.mp4;"),
        (inputs(5), "inputs removed: cam/5.mp4, cam/6.mp4, cam/7.mp4 and 2 more;"),
        ([dataclasses.replace(inputs(10)[0], version="touched"), *inputs(10)[1:]], "inputs changed: cam/0.mp4;"),
        ([dataclasses.replace(inputs(10)[0], estimated_bytes=11), *inputs(10)[1:]], "inputs changed: cam/0.mp4;"),
        ([dataclasses.replace(inputs(10)[0], detail="other labels"), *inputs(10)[1:]], "inputs changed: cam/0.mp4;"),
    ],
)
def test_inputs_that_changed_are_named(output: Path, items: list[Item], message: str) -> None:
    with pytest.raises(UserError) as error:
        acquire_output(str(output), planned(items))
    assert message in str(error.value)
    assert "choose another --out" in str(error.value)


def test_a_setting_that_changed_is_named_before_the_inputs(output: Path) -> None:
    with pytest.raises(UserError, match="settings or inputs: seed was 0, is now 1; choose another"):
        acquire_output(str(output), planned(inputs(12), seed=1))


def test_killed_between_the_list_and_the_plan_it_is_acquired_again(output: Path) -> None:
    (output / "plan.json").unlink()
    acquire_output(str(output), planned(inputs(7)))
    acquire_output(str(output), planned(inputs(7)))


def test_a_list_that_was_lost_or_changed_is_reported(output: Path) -> None:
    listed = output / "inputs.jsonl"
    listed.write_text(listed.read_text().replace('"v3"', '"v33"'))
    with pytest.raises(UserError, match=r"inputs changed: cam/3.mp4"):
        acquire_output(str(output), planned(inputs(10)))
    listed.unlink()
    with pytest.raises(UserError, match=r"its inputs.jsonl is missing"):
        acquire_output(str(output), planned(inputs(10)))


def test_checking_alone_writes_nothing(tmp_path: Path, output: Path) -> None:
    acquire_output(str(tmp_path / "new"), planned(inputs(10)), store=False)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="inputs added"):
        acquire_output(str(output), planned(inputs(11)), store=False)
