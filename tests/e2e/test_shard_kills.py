"""Sharding with `kill -9` at random instants: a rerun ends with the bytes of an undisturbed run."""

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preprocessing.dataset.verify_dataset import verify_dataset
from tests.e2e.shard_job import ShardJob, tree
from tests.preprocessing.video_files import make_videos

pytestmark = pytest.mark.slow

KINDS = ("driver", "worker", "raylet", "decoder")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "videos"
    make_videos(folder, 14)
    return folder


@pytest.fixture(scope="module")
def start(root: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ShardJob]]:
    home, jobs = tmp_path_factory.mktemp("home"), list[ShardJob]()

    def started(out: Path, *args: str) -> ShardJob:
        jobs.append(ShardJob(root, home, str(videos), str(out), *args))
        return jobs[-1]

    yield started
    for job in jobs:
        job.end()


@pytest.fixture(scope="module")
def undisturbed(start: Callable[..., ShardJob], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "data"
    job = start(out, "--shards.concurrency", "1")
    assert job.finish() == 0, job.log.read_text()
    return out


def test_the_undisturbed_run_has_every_clip_and_names_the_bad_inputs(undisturbed: Path) -> None:
    verify_dataset(str(undisturbed))
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert len(manifest["shards"]) >= 6
    complete = sum((40 + 4 * number) // 8 for number in range(14))
    rejects = {record["path"]: record for record in map(json.loads, (undisturbed / "rejects.jsonl").open())}
    assert rejects.keys() == {"broken.mkv", "text.avi"}
    assert rejects["text.avi"]["clips"] == 0
    assert 1 <= rejects["broken.mkv"]["clips"] < 5
    clips = sum(totals["clips"] for totals in manifest["splits"].values())
    assert clips == complete + rejects["broken.mkv"]["clips"]


@pytest.mark.timeout(7200)
def test_killed_at_random_instants_it_ends_with_the_same_bytes(
    start: Callable[..., ShardJob], undisturbed: Path, tmp_path: Path, trials: Callable[[int], int]
) -> None:
    wanted = tree(str(undisturbed))
    shards = sum(name.endswith(".tar") for name in wanted)
    happened: Counter[str] = Counter()
    for trial in range(trials(3)):
        draw = random.Random(trial)
        kind, out = KINDS[trial % len(KINDS)], tmp_path / f"trial{trial}"
        job = start(out, "--shards.concurrency", str(draw.choice((1, 2))))
        hit = kill_at_random(job, kind, draw, shards)
        happened[f"{kind} {'killed' if hit else 'was too late'}"] += 1
        print(f"trial {trial}: {dict(happened)}", flush=True)
        code = job.finish()
        if kind in ("driver", "raylet"):
            log = job.log.read_text()
            if kind == "driver":
                assert (code != 0) == hit, log
            else:  # unless it no longer needed Ray, it reports that Ray failed, or Ray does so and ends it
                assert code == 0 or "Ray" in log, log
            if draw.random() < 0.5:
                job.end()  # as if the machine had died; otherwise its orphans run alongside the next job
            again = start(out, "--shards.concurrency", str(draw.choice((1, 2))))
            if hit and draw.random() < 0.5:
                happened["worker killed in the resumed run"] += kill_at_random(again, "worker", draw, shards)
            assert again.finish() == 0, again.log.read_text()
            again.end()
        else:  # the job itself repeats what was lost
            assert code == 0, job.log.read_text()
        job.end()
        assert tree(str(out)) == wanted, f"trial {trial}, {kind}"


def kill_at_random(job: ShardJob, kind: str, draw: random.Random, shards: int) -> bool:
    """Kill one process of a kind at a random instant between its start and the end. Return whether one was hit."""
    done = draw.randrange(-1, shards if kind in ("driver", "raylet") else shards - 2)
    if not job.wait_until(lambda: job.shards_done() >= done if done >= 0 else bool(job.pids(kind))):
        return False
    time.sleep(draw.uniform(0, 0.15 if done >= 0 or kind in ("worker", "decoder") else 8))
    if not job.wait_until(lambda: bool(job.pids(kind))):
        return False
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(draw.choice(job.pids(kind)), signal.SIGKILL)
        return True
    return False
