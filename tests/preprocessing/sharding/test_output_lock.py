"""An output belongs to the settings and inputs it was created with; a refusal names what changed."""

import dataclasses
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing.clip import Item
from preprocessing.dataset.format import encode_json
from preprocessing.recipe import DataRecipe
from preprocessing.sharding.output_lock import CLAIM, acquire_output
from preprocessing.sharding.plan import Plan, make_plan
from tests.preprocessing.sharding.listed_source import ListedSource


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
    return make_plan(DataRecipe(seed=seed), ListedSource(items))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "format was 1, is now 2;"),
        ({"configuration": {"seed": 0}}, "inputs: shards was None, is now {"),
        ({"source_sha256": "1" * 64}, "the contents of the source's files changed;"),
        ({"shards": 9}, "the list of inputs does not belong to the plan;"),
        ({"inputs_sha256": "1" * 64}, "the list of inputs does not belong to the plan;"),
    ],
)
def test_every_part_of_the_stored_plan_is_compared(output: Path, change: dict[str, object], message: str) -> None:
    stored = json.loads((output / "plan.json").read_text())
    (output / "plan.json").write_text(json.dumps(stored | change))
    with pytest.raises(UserError) as error:
        acquire_output(str(output), planned(inputs(10)))
    assert message in str(error.value)
    assert str(error.value).startswith(f"{output} was created with other settings or inputs: ")


def test_all_settings_that_changed_are_named_and_no_other(output: Path) -> None:
    stored = json.loads((output / "plan.json").read_text())
    stored["configuration"]["shards"]["target_mb"], stored["configuration"]["seed"] = 7.0, 3
    stored["configuration"]["former"] = 1
    (output / "plan.json").write_text(json.dumps(stored))
    target = DataRecipe().shards.target_mb
    with pytest.raises(UserError, match=r"inputs: former was 1, is now None; seed was 3, is now 0; shards\.target_mb "
                       rf"was 7\.0, is now {target}; choose another --out, or restore the original"):  # fmt: skip
        acquire_output(str(output), planned(inputs(10)))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_plan_that_is_not_json_is_named(output: Path, content: bytes) -> None:
    (output / "plan.json").write_bytes(content)
    with pytest.raises(UserError, match=r"/plan\.json is not JSON; choose another --out, or delete that folder$"):
        acquire_output(str(output), planned(inputs(10)))


def test_a_dataset_without_its_plan_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds a dataset without its plan\.json; choose another --out"):
        acquire_output(str(tmp_path), planned(inputs(10)))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_plan_is_stored_after_the_list_of_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, data: bytes) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(storage, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        acquire_output(str(tmp_path), planned(inputs(10)))
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.jsonl"]
    monkeypatch.undo()
    acquire_output(str(tmp_path), planned(inputs(10)))
    lines = [json.loads(line) for line in (tmp_path / "inputs.jsonl").read_text().splitlines()]
    assert sorted(lines) == [
        [f"k{n}", f"cam/{n}.mp4", "test" if n % 3 == 0 else "train", "", 10, "", f"v{n}"] for n in range(10)
    ]
    planned_keys = [item.key for shard in planned(inputs(10)).shards for item in shard.items]
    assert [line[0] for line in lines] == planned_keys


def test_an_input_without_a_path_is_named_by_its_key(tmp_path: Path) -> None:
    without = [dataclasses.replace(item, path="") for item in inputs(10)]
    acquire_output(str(tmp_path), planned(without))
    with pytest.raises(UserError, match="inputs: inputs removed: k9; choose"):
        acquire_output(str(tmp_path), planned(without[:9]))


@pytest.fixture(params=["folder", "folder without links", pytest.param("s3", marks=pytest.mark.s3)])
def new_output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_bucket')}/data"
    if request.param == "folder without links":

        def link(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    return str(tmp_path / "data")


@pytest.mark.parametrize("jobs", [2, 5])
def test_of_jobs_that_all_find_no_plan_one_proceeds(
    new_output: str, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [planned(inputs(10 + number), seed=number) for number in range(jobs)]
    started, read = threading.Barrier(jobs), storage.read_bytes
    waited = threading.local()

    def aligned(url: str) -> bytes:
        try:
            return read(url)
        finally:
            if not getattr(waited, "done", False):
                waited.done = True
                started.wait(60)

    def attempt(plan: Plan) -> str:
        try:
            acquire_output(new_output, plan)
        except UserError as error:
            return str(error)
        return ""

    monkeypatch.setattr(storage, "read_bytes", aligned)
    with ThreadPoolExecutor(jobs) as pool:
        refusals = list(pool.map(attempt, plans))
    monkeypatch.setattr(storage, "read_bytes", read)
    assert refusals.count("") == 1
    assert all(
        "other settings or inputs" in message and "choose another --out" in message for message in refusals if message
    )
    acquire_output(new_output, plans[refusals.index("")])  # the list of inputs is its own
    assert storage.list_files(new_output) == ["inputs.jsonl", "plan.json"]


def test_killed_while_it_stored_its_plan_a_job_is_rerun_and_another_is_refused(new_output: str) -> None:
    own, other = planned(inputs(10)), planned(inputs(7))
    storage.create(f"{new_output}/{CLAIM}", encode_json(own.content()))
    with pytest.raises(UserError, match=rf"choose another --out, or if no other job is running, delete .*/{CLAIM}$"):
        acquire_output(new_output, other)
    acquire_output(new_output, own)
    acquire_output(new_output, own)
    assert storage.list_files(new_output) == ["inputs.jsonl", "plan.json"]
