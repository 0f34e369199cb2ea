"""Sharding with `kill -9` at random instants: a rerun ends with the bytes of an undisturbed run."""

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from preprocessing import shard
from preprocessing.dataset.verify_dataset import verify_dataset
from tests.e2e.shard_job import SETTINGS, ShardJob, tree
from tests.e2e.training_runs import descendants, wait

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(root: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ShardJob]]:
    home, jobs = tmp_path_factory.mktemp("home"), list[ShardJob]()

    def started(out: Path, *args: str) -> ShardJob:
        jobs.append(ShardJob(root, home, str(videos), str(out), *args))
        return jobs[-1]

    yield started
    for job in jobs:
        job.end()


def test_the_undisturbed_run_has_every_clip_and_names_the_bad_inputs(sharded_videos: Path) -> None:
    verify_dataset(str(sharded_videos))
    manifest = json.loads((sharded_videos / "manifest.json").read_text())
    assert len(manifest["shards"]) >= 6
    complete = sum((40 + 4 * number) // 8 for number in range(14))
    rejects = {record["path"]: record for record in map(json.loads, (sharded_videos / "rejects.jsonl").open())}
    assert rejects.keys() == {"broken.mkv", "text.avi"}
    assert rejects["text.avi"]["clips"] == 0
    assert 1 <= rejects["broken.mkv"]["clips"] < 5
    clips = sum(totals["clips"] for totals in manifest["splits"].values())
    assert clips == complete + rejects["broken.mkv"]["clips"]


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_killed_at_random_instants_a_rerun_ends_with_the_same_bytes(
    start: Callable[..., ShardJob], sharded_videos: Path, tmp_path: Path, trials: Callable[[int], int]
) -> None:
    wanted = tree(str(sharded_videos))
    shards = sum(name.endswith(".tar") for name in wanted)
    happened: Counter[str] = Counter()
    for trial in range(trials(2)):
        draw = random.Random(trial)
        kind, out = ("driver", "raylet")[trial % 2], tmp_path / f"trial{trial}"
        job = start(out, "--shards.concurrency", str(draw.choice((1, 2))))
        hit = kill_at_random(job, kind, draw, shards)
        happened[f"{kind} {'killed' if hit else 'was too late'}"] += 1
        print(f"trial {trial}: {dict(happened)}", flush=True)
        code = job.finish()
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
        job.end()
        assert tree(str(out)) == wanted, f"trial {trial}, {kind}"


@pytest.mark.timeout(7200)
def test_what_killed_workers_and_decoders_lost_is_repeated_by_the_job(
    local_ray: None, videos: Path, sharded_videos: Path, tmp_path: Path, trials: Callable[[int], int]
) -> None:
    wanted = tree(str(sharded_videos))
    shards = sum(name.endswith(".tar") for name in wanted)
    marks = {"worker": "ray::_write", "decoder": "preprocessing.decoding.sandbox_main"}
    hits: Counter[str] = Counter()
    for trial in range(trials(2)):
        draw = random.Random(100 + trial)
        kind, out, ended = tuple(marks)[trial % 2], tmp_path / f"trial{trial}", threading.Event()

        def disturb(draw: random.Random = draw, kind: str = kind, out: Path = out, over: Any = ended) -> None:
            done, delay = draw.randrange(0, shards - 3), draw.uniform(0, 0.15)
            wait(lambda: over.is_set() or len(list(out.glob("*/*.json"))) >= done, "enough shards are written")
            time.sleep(delay)
            found: list[int] = []
            while not found and not over.is_set():
                found = [pid for pid, command in descendants(os.getpid()).items() if marks[kind] in command]
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(draw.choice(found), signal.SIGKILL)
                hits[kind] += 1

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            args = ["--source.name", "videos", "--source.path", str(videos), *SETTINGS, "--out", str(out)]
            shard.main([*args, "--shards.concurrency", str(draw.choice((1, 2)))])
        finally:
            ended.set()
            thread.join()
        assert tree(str(out)) == wanted, f"trial {trial}, {kind}"
    print(f"killed: {dict(hits)}")
    assert set(hits) == set(marks)


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
