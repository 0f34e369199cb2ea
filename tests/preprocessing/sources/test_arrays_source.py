"""NumPy files give clips and never run code."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.errors import UserError
from preprocessing.clip import Clip, RejectedInputError
from preprocessing.clip import Source as AnySource
from preprocessing.sources import array_file
from preprocessing.sources.config import ArraysConfig, LabelsConfig, SourceConfig
from preprocessing.sources.registry import make_source

SIZE = 112


def source(path: Path, **settings: Any) -> AnySource:
    config = ArraysConfig(**({"clip_frames": 4, "size": SIZE} | settings))
    return make_source(SourceConfig(name="arrays", path=str(path), arrays=config), 0)


def every(found: AnySource) -> dict[str, list[Clip]]:
    return {item.path: list(found.clips(item)) for item in found.items()}


def faces(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


LABELS = np.array([[3, 0], [3, 4], [7, 0], [11, 4], [11, 0]])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_mug_fed_as_one_array(tmp_path: Path, compressed: bool, order: Any) -> None:
    images = faces(5, 9, SIZE, SIZE, 3)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "mug.npz", images=np.asarray(images, order=order), labels=LABELS)
    found = source(tmp_path / "mug.npz")
    assert found.vocabulary == {"action": ["0", "4"]}
    assert {item.group for item in found.items()} == {"3", "7", "11"}
    made = every(found)
    assert list(made) == [f"mug.npz#{number:06d}" for number in range(5)]
    for number, clips in enumerate(made.values()):
        assert np.array_equal(np.concatenate([clip.frames for clip in clips]), images[number, :8])
        assert {clip.labels["action"] for clip in clips} == {int(LABELS[number, 1] == 4)}
        assert {clip.identity for clip in clips} == {str(LABELS[number, 0])}


def test_mug_fed_with_videos_of_different_lengths(tmp_path: Path) -> None:
    videos = [faces(length, SIZE, SIZE, 3, seed=length) for length in (5, 8, 4, 13, 3)]
    lengths = [len(video) for video in videos]
    np.savez(tmp_path / "mug.npz", images=np.concatenate(videos), lengths=lengths, labels=LABELS)
    found = source(tmp_path / "mug.npz", label_names=("identity", "expression"))
    assert list(found.vocabulary) == ["expression"]
    for video, item in zip(videos[:4], found.items()[:4], strict=True):
        clips = list(found.clips(item))
        assert len(clips) == len(video) // 4
        assert np.array_equal(np.concatenate([clip.frames for clip in clips]), video[: len(clips) * 4])
    with pytest.raises(RejectedInputError, match="too short"):
        list(found.clips(found.items()[4]))


def test_a_folder_of_npy_files_with_labels_by_folder(tmp_path: Path) -> None:
    for person in ("anna", "bert"):
        (tmp_path / person).mkdir()
        np.save(tmp_path / person / "grey.npy", faces(6, 64, 48))
        np.save(tmp_path / person / "float.npy", faces(6, 64, 64, 1).astype(np.float32) / 255)
    found = source(tmp_path, size=32, channels=1, labels=LabelsConfig(folders=("identity",)))
    made = every(found)
    assert list(made) == ["anna/float.npy", "anna/grey.npy", "bert/float.npy", "bert/grey.npy"]
    assert {clip.frames.shape for clips in made.values() for clip in clips} == {(4, 32, 32, 1)}


def test_floats_are_scaled_to_bytes(tmp_path: Path) -> None:
    values = faces(4, 32, 32, 3)
    np.save(tmp_path / "a.npy", values / np.float64(255))
    np.save(tmp_path / "b.npy", values)
    made = every(source(tmp_path, size=32))
    assert np.array_equal(made["a.npy"][0].frames, values)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    with pytest.raises(RejectedInputError, match="not between 0 and 1"):
        every(source(tmp_path, size=32))
    np.save(tmp_path / "a.npy", np.full((4, 32, 32, 3), np.nan))
    with pytest.raises(RejectedInputError, match="not between 0 and 1"):
        every(source(tmp_path, size=32))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("array", ["images", "labels", "npy"])
def test_pickles_are_refused_with_a_safe_alternative_and_never_loaded(
    tmp_path: Path, array: str, compressed: bool
) -> None:
    trap = np.empty(2, object)
    trap[:] = [Trap(tmp_path / "sprung"), faces(4, 32, 32, 3)]
    good = {"images": faces(2, 4, 32, 32, 3), "labels": LABELS[:2]}
    if array == "npy":
        np.save(tmp_path / "mug.npy", trap, allow_pickle=True)
    else:
        (np.savez_compressed if compressed else np.savez)(tmp_path / "mug.npz", **(good | {array: trap}))
    with pytest.raises(UserError, match=r"contains Python objects.*numpy.savez") as raised:
        source(tmp_path).items()
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(trap[0]))
    assert (tmp_path / "sprung").exists()  # loading it would have run the code


def test_the_safe_alternative_works(tmp_path: Path) -> None:
    videos = np.empty(3, object)
    videos[:] = [faces(length, 32, 32, 3) for length in (4, 6, 8)]
    np.savez(tmp_path / "old.npz", images=videos, labels=LABELS[:3].astype(object))
    with pytest.raises(UserError) as raised:
        source(tmp_path / "old.npz").items()
    load, save = str(raised.value).split("`")[1::2]
    names = {"numpy": np, "FILE": tmp_path / "old.npz", "NEW": tmp_path / "new.npz"}
    exec(f"{load}\n{save}", names)
    assert [len(clips) for clips in every(source(tmp_path / "new.npz", size=32)).values()] == [1, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": faces(2, 4, 8, 8, 3), "labels": LABELS}, r"`labels` is int64 \[5, 2\] for 2 videos"),
        ({"images": faces(2, 4, 8, 8, 3), "labels": LABELS[:2, :1]}, "`labels` has 1 columns; name each of them in"),
        ({"images": faces(9, 8, 8, 3), "lengths": [4, 4]}, "`lengths` sums to 8, but there are 9 frames"),
        (
            {"a": faces(4, 8, 8, 3), "b": faces(4, 8, 8, 3)},
            r"has no array `images` \(found: a, b\)",
        ),
        ({"images": faces(4, 3, 8, 8)}, r"the frames have shape \[4, 3, 8, 8\]"),
        ({"images": np.zeros((4, 8, 8, 3), np.int64)}, "the frames are int64"),
        ({"labels": LABELS}, r"has no array `images` \(found: none\)"),
    ],
)
def test_a_file_with_another_layout_is_reported(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        source(tmp_path).items()


def test_damaged_files_are_rejected_when_they_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", faces(4, 32, 32, 3))
    data = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:-10])
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04 and nothing")
    found = source(tmp_path, size=32)
    outcomes = {}
    for item in found.items():
        try:
            outcomes[item.path] = str(len(list(found.clips(item))))
        except RejectedInputError as rejected:
            outcomes[item.path] = str(rejected)
    assert outcomes["good.npy"] == "1"
    assert "cut short" in outcomes["cut.npy"]
    assert "no NumPy file" in outcomes["text.npy"]
    assert "no NumPy file" in outcomes["zip.npz"]


def test_a_folder_without_arrays_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no .npy or .npz file found"):
        source(tmp_path).items()


def npy(shape: tuple[int, ...], dtype: str = "|u1", values: int = 0) -> bytes:
    """Return a .npy whose header states a shape, with some values."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(values)


@pytest.mark.parametrize(
    "shape",
    [(10**9, 4, 8, 8, 3), (10**9, 8, 8, 3), (10**9, 1, 1, 1, 1), (-1, 4, 8, 8, 3), (2, -4, 8, 8, 3), (4, 8, -8, 3)],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_state_what_is_not_there_are_rejected_at_the_listing(
    tmp_path: Path, shape: tuple[int, ...], packed: bool
) -> None:
    data = npy(shape, values=1000)
    if packed:
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", data)
    else:
        (tmp_path / "a.npy").write_bytes(data)
    np.save(tmp_path / "good.npy", faces(4, 32, 32, 3))
    bad, _ = source(tmp_path).items()  # one item, not 10^9
    with pytest.raises(RejectedInputError):
        list(source(tmp_path).clips(bad))


@pytest.mark.parametrize("name", ["images", "labels", "lengths"])
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"images": (700, 1, 1024, 1024, 3), "labels": (300_000_000,), "lengths": (2, 150_000_000)}[name]
    dtype = "|u1" if name == "images" else "<i8"
    header = npy(shape, dtype)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if name != "images":
            archive.writestr("images.npy", npy((4, 8, 8, 3), values=768))
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(header)
            for _ in range(150):  # the directory below states the rest
                member.write(bytes(1_000_000))
        archive.getinfo(f"{name}.npy").file_size = len(header) + 2_400_000_000
    monkeypatch.setattr(array_file, "_unpack", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises((RejectedInputError, UserError), match=r"would unpack to|labels|too many"):
        list(source(tmp_path).clips(source(tmp_path).items()[0]))


def test_arrays_are_read_in_a_process_of_their_own(tmp_path: Path) -> None:
    assert source(tmp_path).untrusted


def test_a_pipe_among_the_inputs_is_skipped_and_a_named_one_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", faces(4, 32, 32, 3))
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "device.npy").symlink_to("/dev/zero")
    assert [item.path for item in source(tmp_path).items()] == ["good.npy"]
    for name in ("pipe.npy", "device.npy"):
        (tmp_path / "list.txt").write_text(f"good.npy\n{name}\n")
        for path in (tmp_path / name, tmp_path / "list.txt"):
            with pytest.raises(UserError, match=f"{name}(: not a regular file|, which does not exist)"):
                source(path).items()
