"""Checkpoints are complete or refused, and never run code."""

import hashlib
import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from vdsm import checkpoint
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler

TINY = {
    "num_experts": 3,
    "pose_size": 2,
    "dynamics_size": 4,
    "frame_size": 32,
    "encoder_channels": (4, 4, 4),
    "encoder_hidden": 8,
    "static_hidden": 8,
    "decoder_channels": (8, 4, 4),
    "rnn_width": 8,
    "rnn_layers": 1,
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    checkpoint.save({"step": 3, "weights": torch.arange(50_000.0), "sizes": (1, 2)}, tmp_path / "runs" / "state.pt")
    return tmp_path / "runs" / "state.pt"


def test_a_saved_checkpoint_is_loaded_unchanged(written: Path) -> None:
    state = checkpoint.load(written)
    assert state["step"] == 3
    assert state["sizes"] == (1, 2)
    assert torch.equal(state["weights"], torch.arange(50_000.0))
    assert [path.name for path in written.parent.iterdir()] == ["state.pt"]


def test_the_hash_is_that_of_the_bytes_before_the_footer(written: Path) -> None:
    body, _, footer = written.read_bytes().rpartition(b"\nvdsm-checkpoint-sha256=")
    assert footer == hashlib.sha256(body).hexdigest().encode() + b"\n"
    assert checkpoint.verify(written) == hashlib.sha256(body).hexdigest()


def test_torch_reads_the_file_too(written: Path) -> None:
    assert torch.load(written, weights_only=True)["step"] == 3


def test_a_crash_while_writing_leaves_the_old_checkpoint(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(state: Any, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"step": 4}, written)
    monkeypatch.undo()
    assert checkpoint.load(written)["step"] == 3
    assert [path.name for path in written.parent.iterdir()] == ["state.pt"]


def test_the_complete_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    synced = []

    def noted(handle: int) -> None:
        partial = Path(f"/proc/self/fd/{handle}").readlink()
        synced.append((checkpoint.verify(partial), partial.parent, path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    digest = checkpoint.save({"step": 3}, path)
    assert synced == [(digest, tmp_path, False)]
    assert checkpoint.verify(path) == digest


def test_a_file_larger_than_what_is_read_at_once_is_hashed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (1, 63, 64, 65, 1000):
        monkeypatch.setattr(checkpoint, "_CHUNK_BYTES", size)
        digest = checkpoint.save({"weights": torch.arange(500.0)}, tmp_path / "state.pt")
        body = (tmp_path / "state.pt").read_bytes()[: -len("\nvdsm-checkpoint-sha256=") - 65]
        assert checkpoint.verify(tmp_path / "state.pt") == digest == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("kept", [0, 50, 0.5, 0.9, -1])
def test_a_truncated_file_is_refused(written: Path, kept: float) -> None:
    data = written.read_bytes()
    written.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=f"^{re.escape(str(written))}: is truncated.*earlier checkpoint$"):
        checkpoint.load(written)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.7, 0.999])
def test_a_flipped_bit_is_refused(written: Path, position: float) -> None:
    data = bytearray(written.read_bytes())
    data[int(position * len(data))] ^= 4
    written.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(str(written))}: is (damaged|truncated).*earlier checkpoint$"):
        checkpoint.load(written)


class Code:
    """An object whose pickle is a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_with_a_valid_hash_is_refused_and_not_run(tmp_path: Path) -> None:
    checkpoint.save({"model": Code(tmp_path / "ran")}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state.pt: .* could run code, and was not loaded"):
        checkpoint.load(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def signed(path: Path, content: bytes) -> Path:
    """Write a file with a valid hash, as anyone can."""
    path.write_bytes(content + b"\nvdsm-checkpoint-sha256=" + hashlib.sha256(content).hexdigest().encode() + b"\n")
    return path


def test_a_packed_checkpoint_with_a_valid_hash_is_refused_before_it_is_unpacked(written: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(written) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in stored.infolist():
            archive.writestr(member.filename, stored.read(member))
    for content in (packed.getvalue(), b"no zip at all"):
        with pytest.raises(ValueError, match="was not loaded; use a checkpoint written by this program"):
            checkpoint.load(signed(tmp_path / "packed.pt", content))


def test_a_pipe_in_the_place_of_a_checkpoint_does_not_stop_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state.pt")
    for read in (checkpoint.load, checkpoint.verify):
        with pytest.raises(ValueError, match=r"state.pt: is not a regular file but a pipe"):
            read(tmp_path / "state.pt")


@pytest.mark.parametrize(("name", "message"), [("none.pt", "no such checkpoint"), ("", "is a folder")])
def test_a_missing_file_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path / name)


def test_a_disentangler_is_restored_unchanged(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = Disentangler(ModelConfig(**TINY)).eval()  # type: ignore[arg-type]
    state = {"model_config": dict(TINY), "model": model.state_dict(), "temperature": 4.0}
    checkpoint.save(state, tmp_path / "state.pt")
    loaded = checkpoint.load_disentangler(tmp_path / "state.pt")
    model.temperature = 4.0
    frames = torch.rand(2, 3, 3, 32, 32)
    assert torch.equal(loaded.reconstruct(frames), model.reconstruct(frames))
    assert not loaded.training


@pytest.mark.parametrize("change", [{"num_experts": 4}, {"unknown": 1}, {"pose_size": -1}])
def test_weights_of_another_model_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    model = Disentangler(ModelConfig(**TINY))  # type: ignore[arg-type]
    checkpoint.save({"model_config": TINY | change, "model": model.state_dict()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state.pt: does not fit this version of the model"):
        checkpoint.load_disentangler(tmp_path / "state.pt")


def test_a_dict_without_a_model_is_refused(tmp_path: Path) -> None:
    checkpoint.save({"model": {}}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="has no model_config; use a checkpoint of `vdsm train`"):
        checkpoint.load_disentangler(tmp_path / "state.pt")


def test_the_weights_that_the_run_names_are_used_and_an_absent_temperature_is_the_default(tmp_path: Path) -> None:
    torch.manual_seed(5)
    last, mean = (Disentangler(ModelConfig(**TINY)).state_dict() for _ in range(2))  # type: ignore[arg-type]
    state = {"model_config": dict(TINY), "model": last, "ema": mean}
    for used, weights in (({}, last), ({"used": "model"}, last), ({"used": "ema"}, mean)):
        checkpoint.save(state | used, tmp_path / "state.pt")
        loaded = checkpoint.load_disentangler(tmp_path / "state.pt")
        assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
        assert loaded.temperature == 10.0


def test_a_file_that_holds_no_dict_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "state.pt").open("wb") as file:
        torch.save([1, 2], file)
    body = (tmp_path / "state.pt").read_bytes()
    footer = f"\nvdsm-checkpoint-sha256={hashlib.sha256(body).hexdigest()}\n".encode()
    (tmp_path / "state.pt").write_bytes(body + footer)
    with pytest.raises(ValueError, match=r"state.pt: holds a list, not a checkpoint; use one written by this program$"):
        checkpoint.load(tmp_path / "state.pt")
