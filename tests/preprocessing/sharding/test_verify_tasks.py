"""`vdsm verify --concurrency`: the same checks as Ray tasks."""

import functools
import shutil
from pathlib import Path

import pytest

from preprocessing import verify
from preprocessing.dataset import verify_dataset as module
from preprocessing.sharding.verify_tasks import verify_in_tasks

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(figures_dataset: Path, tmp_path: Path, local_ray: None) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(figures_dataset, tmp_path / "copy"))


def test_a_good_dataset_passes_and_no_shard_is_read_here(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify.main([str(copy)])
    alone = capsys.readouterr().out
    monkeypatch.setattr(module, "verify_shard", None)
    verify.main([str(copy), "--concurrency", "2"])
    assert capsys.readouterr().out == alone


def test_clips_are_reported_shard_by_shard_in_whatever_order(copy: Path) -> None:
    verified: list[int] = []
    in_tasks = functools.partial(verify_in_tasks, limit=2)
    manifest = module.verify_dataset(str(copy), on_verified=verified.append, verify_shards=in_tasks)
    assert sorted(verified) == sorted(shard["clips"] for shard in manifest["shards"])


@pytest.mark.parametrize("end", [".tar", ".json"])
def test_damage_is_reported_in_the_words_of_one_process(
    copy: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    path = copy / f"train/shard-000001{end}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    lines = []
    for options in ([], ["--concurrency", "2"]):
        with pytest.raises(SystemExit) as stopped:
            verify.main([str(copy), *options])
        assert stopped.value.code == 1
        lines.append([line for line in capsys.readouterr().err.splitlines() if line.startswith("damaged: ")])
    assert len(lines[0]) == 1
    assert lines[1] == lines[0]
