"""`vdsm verify` finds every kind of damage, and names the shard and the clip."""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocessing import verify
from preprocessing.dataset import verify_shard
from preprocessing.dataset.verify_dataset import verify_dataset

SHARD = "train/shard-000001"


@pytest.fixture
def copy(figures_dataset: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(figures_dataset, tmp_path / "copy"))


def third_key(folder: Path) -> str:
    return str(json.loads((folder / f"{SHARD}.json").read_text())["samples"][2]["key"])


def rehash(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the index of `SHARD` and update the hashes in the manifest, so that only the contents reveal it."""
    index = folder / f"{SHARD}.json"
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))
    manifest = json.loads((folder / "manifest.json").read_text())
    (entry,) = (shard for shard in manifest["shards"] if shard["path"] == f"{SHARD}.tar")
    entry["index_sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
    tar = (folder / f"{SHARD}.tar").read_bytes()
    entry |= {"sha256": hashlib.sha256(tar).hexdigest(), "size_bytes": len(tar), "clips": len(content["samples"])}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the damage that the command reports, with exit code 1."""
    with pytest.raises(SystemExit) as end:
        verify.main([str(folder)])
    assert end.value.code == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("damaged: "))
    return line


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_good_dataset_passes(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify.main(["--data", str(copy)])
    assert "all 72 clips in" in capsys.readouterr().out


def test_verified_clips_are_reported_shard_by_shard(copy: Path) -> None:
    verified: list[int] = []
    manifest = verify_dataset(str(copy), on_verified=verified.append)
    assert verified == [shard["clips"] for shard in manifest["shards"]]
    assert sum(verified) == 72


def test_dry_run_prints_what_would_be_read(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / f"{SHARD}.tar").unlink()
    verify.main([str(copy), "--dry-run"])
    assert "would read 72 clips in" in capsys.readouterr().out


def test_a_missing_dataset_is_a_user_error_and_not_damage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        verify.main([str(tmp_path)])
    assert end.value.code == 2


@pytest.mark.parametrize("offset", [3, 100, 9000])
@pytest.mark.parametrize("suffix", ["frames.npy", "json"])
def test_a_flipped_bit_is_traced_to_its_clip(
    copy: Path, capsys: pytest.CaptureFixture[str], suffix: str, offset: int
) -> None:
    tar, key = copy / f"{SHARD}.tar", third_key(copy)
    with tarfile.open(tar) as content:
        member = content.getmember(f"{key}.{suffix}")
    flip(tar, member.offset_data + offset % member.size)
    assert f"{SHARD}.tar: clip {key}: its " in damage_of(copy, capsys)


def test_a_flipped_bit_between_clips_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = copy / f"{SHARD}.tar"
    flip(tar, tar.stat().st_size - 1)
    assert f"{SHARD}.tar: its SHA-256 does not match the manifest" in damage_of(copy, capsys)


def test_a_flipped_bit_in_a_tar_header_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(copy / f"{SHARD}.tar") as content:
        header = content.getmembers()[4].offset
    flip(copy / f"{SHARD}.tar", header + 130)
    assert SHARD in damage_of(copy, capsys)


def test_a_tar_cut_between_two_clips_names_the_first_that_is_gone(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(copy / f"{SHARD}.tar") as content:
        boundary = content.getmembers()[4].offset
    os.truncate(copy / f"{SHARD}.tar", boundary)
    assert f"{SHARD}.tar: clip {third_key(copy)}: {third_key(copy)}.frames.npy is missing" in damage_of(copy, capsys)


@pytest.mark.parametrize("end", [".tar", ".json"])
def test_a_missing_file_is_named(copy: Path, capsys: pytest.CaptureFixture[str], end: str) -> None:
    (copy / (SHARD + end)).unlink()
    assert f"{SHARD}{end}: it is missing" in damage_of(copy, capsys)


def test_an_extra_file_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "train" / "shard-000099.tar").write_bytes(b"")
    assert "train/shard-000099.tar: the manifest does not list this file" in damage_of(copy, capsys)


def test_an_identity_in_two_splits_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test_index = json.loads((copy / "test" / "shard-000000.json").read_text())
    foreign = test_index["samples"][0]["identity"]
    tar = copy / f"{SHARD}.tar"
    own = json.loads((copy / f"{SHARD}.json").read_text())["samples"][2]["identity"]
    assert len(own) == len(foreign)
    tar.write_bytes(tar.read_bytes().replace(f'"identity":"{own}"'.encode(), f'"identity":"{foreign}"'.encode()))

    def change(content: dict[str, Any]) -> None:
        content["sha256"] = hashlib.sha256(tar.read_bytes()).hexdigest()
        for sample in content["samples"]:
            if sample["identity"] == own:
                sample["identity"] = foreign

    rehash(copy, change)
    assert f"identity {foreign} is in two splits" in damage_of(copy, capsys)


@pytest.mark.parametrize("kind", ["label", "shape", "one clip missing", "repeated"])
def test_an_index_that_does_not_match_the_clips_is_found(
    copy: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    key = third_key(copy)

    def change(content: dict[str, Any]) -> None:
        sample = content["samples"][2]
        if kind == "label":
            sample["labels"]["action"] += 1
        elif kind == "shape":
            sample["shape"] = [4, 128, 64, 3]
        elif kind == "one clip missing":
            del content["samples"][2]
        else:
            content["samples"].insert(2, sample)

    rehash(copy, change)
    damage = damage_of(copy, capsys)
    assert SHARD in damage
    assert key in damage


def test_a_share_of_the_clips_may_be_decoded_while_every_byte_is_hashed(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(verify_shard, "_verify_frames", lambda clip, *_: decoded.append(clip))
    verify.main([str(copy), "--decode", "0.25"])
    shards = json.loads((copy / "manifest.json").read_text())["shards"]
    assert len(decoded) == sum(shard["clips"] // 4 for shard in shards)
    decoded.clear()
    verify.main([str(copy), "--decode", "0"])
    assert decoded == []
    capsys.readouterr()
    tar, key = copy / f"{SHARD}.tar", third_key(copy)
    with tarfile.open(tar) as content:
        flip(tar, content.getmember(f"{key}.frames.npy").offset_data + 4000)
    with pytest.raises(SystemExit):
        verify.main([str(copy), "--decode", "0"])
    assert f"{SHARD}.tar: clip {key}: its frames were changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("manifest.json", '"clips":54,', '"clips":55,', "train: clips are 54, but the manifest says 55"),
        ("manifest.json", '"identities":9,', '"identities":8,', "train: identities are 9, but the manifest says 8"),
        ("manifest.json", '"seconds":54.0,', '"seconds":53.0,', "train: seconds are 54.0, but the manifest says 53.0"),
        ("plan.json", '"shards":', '"shards": ', "plan.json: its SHA-256 does not match the manifest"),
        ("inputs.jsonl", '"test"', '"train"', "inputs.jsonl: it does not list the inputs of plan.json"),
        ("inputs.jsonl", "[", "{", "inputs.jsonl: it is not a list of inputs"),
        ("rejects.jsonl", "", "more", "rejects.jsonl: its SHA-256 does not match the manifest"),
    ],
)
def test_the_files_next_to_the_shards_are_checked_too(
    copy: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, message: str
) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    assert message in damage_of(copy, capsys)


def test_a_group_in_two_splits_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (copy / "inputs.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert (first[2], last[2]) == ("train", "test")
    first[3] = last[3] = "anna"
    (copy / "inputs.jsonl").write_text("\n".join(map(json.dumps, [first, *map(json.loads, lines[1:-1]), last])))
    assert "inputs.jsonl: group anna is in two splits" in damage_of(copy, capsys)
