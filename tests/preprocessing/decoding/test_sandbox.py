"""Whatever an input does to the process that decodes it, the job continues: no good clip is lost or duplicated."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.clip import Clip, Clips, Item, RejectedInputError, TransientError
from preprocessing.decoding.sandbox import INHERITED, DecodeProcess, SandboxFailedError
from preprocessing.sharding.reading import read_item
from preprocessing.sharding.rejects import Reject
from tests.preprocessing.decoding.hostile_decoder import FORGED, clip, open_hostile_source

pytestmark = pytest.mark.slow

PATIENCE_S = 20


@pytest.fixture
def decoder() -> Iterator[DecodeProcess]:
    process = DecodeProcess(open_hostile_source, "", cpu_seconds=1, memory_mb=300)
    yield process
    process.close()


def item(key: str, detail: str = "") -> Item:
    return Item(key=key, split="train", estimated_bytes=1, path=f"videos/{key}.mp4", detail=detail)


def read(clips: Clips, one: Item) -> tuple[list[Clip], Reject | None]:
    """Return all clips of an item, and its reject record if it is bad."""
    reading = read_item(clips, one, PATIENCE_S)
    found = []
    while True:
        try:
            found.append(next(reading))
        except StopIteration as end:
            return found, end.value


def assert_clips(found: list[Clip], key: str, count: int) -> None:
    assert [one.key for one in found] == [f"{key}-{number}" for number in range(count)]
    for number, one in enumerate(found):
        wanted = clip(key, number)
        np.testing.assert_array_equal(one.frames, wanted.frames)
        assert {name: value for name, value in vars(one).items() if name != "frames"} == {
            name: value for name, value in vars(wanted).items() if name != "frames"
        }


def test_clips_arrive_unchanged_and_one_process_serves_many_inputs(decoder: DecodeProcess) -> None:
    pids = set()
    for key in ("a", "b", "c"):
        found, reject = read(decoder.clips, item(key))
        assert reject is None
        assert_clips(found, key, 3)
        pids.add(decoder.pid)
    assert len(pids) == 1
    assert pids != {os.getpid()}


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("reject", "too odd"),
        ("spin", "decoding took more than 1 s of CPU time for one clip"),
        ("sleep", "decoding stood still for 1 s"),
        ("hoard 400", "decoding needs more than 300 MB of memory"),
        ("segfault", "the decoder crashed (SIGSEGV)"),
        ("abort", "the decoder crashed (SIGABRT)"),
        ("exit 3", "the decoder ended the process (exit code 3)"),
        ("exit 0", "the decoder ended the process (exit code 0)"),
        ("raise", "decoding failed with ZeroDivisionError"),
        ("garble", "the decoder wrote where it should not"),
        *((f"forge {name}", "the decoder wrote where it should not") for name in FORGED),
    ],
)
def test_a_bad_input_is_rejected_with_its_reason_and_the_next_is_complete(
    decoder: DecodeProcess, deed: str, reason: str
) -> None:
    assert_clips(read(decoder.clips, item("before"))[0], "before", 3)
    found, reject = read(decoder.clips, item("bad", deed))
    assert_clips(found, "bad", 2)
    assert reject is not None
    assert (reject.path, reject.reason, reject.clips, reject.split) == ("videos/bad.mp4", reason, 2, "train")
    assert_clips(read(decoder.clips, item("after"))[0], "after", 3)


def test_a_decoder_inherits_no_credentials_and_no_variable_that_it_does_not_need(
    decoder: DecodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH", "PGPASSWORD", "HF_TOKEN", "VDSM_S3_KMS_KEY_ID", "ANY_OTHER",
    ):  # fmt: skip
        monkeypatch.setenv(name, "secret")
    _, reject = read(decoder.clips, item("a", "variables"))
    assert reject is not None
    allowed = {*INHERITED, "PYTHONPATH", "PYTHONSAFEPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LC_CTYPE"}
    assert set(reject.reason.split()) <= allowed
    assert not any("KEY" in name or "TOKEN" in name for name in INHERITED)


def test_a_decoder_imports_this_project_whatever_the_working_folder_and_pythonpath_hold(
    root: Path, tmp_path: Path
) -> None:
    for name in ("preprocessing", "cluster", "vdsm", "pipeline"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a module of the user')")
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from preprocessing.decoding.sandbox import DecodeProcess\n"
        "from preprocessing.sources.registry import open_serialized_source, serialize_source\n"
        "from preprocessing.sources.config import SourceConfig\n"
        "from preprocessing.sources.registry import make_source\n"
        "config = SourceConfig(); source = make_source(config, 0)\n"
        "sys.path[0] = ''\n"  # a parent that found this project in another way
        "process = DecodeProcess(\n"
        "    open_serialized_source, serialize_source(config, 0, source), cpu_seconds=60, memory_mb=700)\n"
        "print(next(process.clips(source.items()[0])).key)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_output_of_a_decoder_does_not_corrupt_the_messages(decoder: DecodeProcess) -> None:
    found, reject = read(decoder.clips, item("loud", "print"))
    assert reject is None
    assert_clips(found, "loud", 3)


def test_memory_leaked_by_earlier_inputs_is_not_blamed_on_the_next(decoder: DecodeProcess) -> None:
    for number in range(4):  # 100 MB each would pass; all four together do not
        found, reject = read(decoder.clips, item(f"leak{number}", "hoard 100"))
        assert reject is None
        assert_clips(found, f"leak{number}", 3)


@pytest.mark.parametrize("kind", ["kill", "disk", "server"])
def test_a_failure_that_is_not_the_inputs_fault_is_retried(decoder: DecodeProcess, tmp_path: Path, kind: str) -> None:
    found, reject = read(decoder.clips, item("good", f"once {tmp_path}/mark {kind}"))
    assert (tmp_path / "mark").exists()
    assert reject is None
    assert_clips(found, "good", 3)


def test_killing_the_process_at_any_clip_loses_no_clip(decoder: DecodeProcess) -> None:
    for after in range(3):
        found = []
        for number, one in enumerate(read_item(decoder.clips, item("good"), 0)):
            found.append(one)
            if number == after and decoder.pid is not None:
                os.kill(decoder.pid, signal.SIGKILL)
        assert_clips(found, "good", 3)


def test_a_failure_states_whether_the_input_must_be_the_cause(decoder: DecodeProcess) -> None:
    conclusive = []
    for key, deed in (("a", ""), ("b", "segfault"), ("c", "segfault")):
        try:
            list(decoder.clips(item(key, deed)))
        except SandboxFailedError as failure:
            conclusive.append(failure.conclusive)
    assert conclusive == [False, True]


def test_clips_of_an_abandoned_input_are_not_returned_for_the_next(decoder: DecodeProcess) -> None:
    unfinished = decoder.clips(item("first"))
    next(unfinished)
    unfinished.close()
    assert_clips(read(decoder.clips, item("second"))[0], "second", 3)


def test_the_process_dies_with_its_parent_even_in_the_middle_of_a_video(root: Path) -> None:
    code = (
        "from preprocessing.decoding.sandbox import DecodeProcess\n"
        "from tests.preprocessing.decoding.hostile_decoder import open_hostile_source\n"
        "from tests.preprocessing.decoding.test_sandbox import item\n"
        "process = DecodeProcess(open_hostile_source, '', cpu_seconds=60, memory_mb=700)\n"
        "for number, _ in enumerate(process.clips(item('a', 'sleep'))):\n"
        "    if number == 1:\n"
        "        print(process.pid, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < end
        time.sleep(0.01)


def failing(errors: list[Exception]) -> Clips:
    """Give two clips, then fail with the next of the errors; once there are none left, give the third clip."""

    def clips(one: Item) -> Iterator[Clip]:
        yield clip(one.key, 0)
        yield clip(one.key, 1)
        if errors:
            raise errors.pop(0)
        yield clip(one.key, 2)

    return clips


def test_a_disk_that_stays_unavailable_stops_the_job_and_rejects_nothing() -> None:
    with pytest.raises(UserError, match=r"videos/a.mp4 could not be read for 0 s \(gone\); rerun the same command"):
        list(read_item(failing([TransientError("gone")] * 9), item("a"), 0))


def test_an_input_that_is_bad_only_after_a_failure_of_the_disk_is_bad() -> None:
    found, reject = read(failing([TransientError("gone"), RejectedInputError("cut off", "2 s")]), item("a"))
    assert_clips(found, "a", 2)
    assert reject is not None
    assert reject.record() == {
        "path": "videos/a.mp4", "reason": "cut off", "where": "2 s", "clips": 2, "split": "train",
    }  # fmt: skip
