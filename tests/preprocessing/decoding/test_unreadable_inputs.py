"""An input that this user may not read is rejected; a fault of this machine ends the job; storage is retried."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.storage.errors import MachineError
from preprocessing.clip import Clip, Item, RejectedInputError, TransientError
from preprocessing.decoding import input_file
from preprocessing.decoding.input_file import open_input, reading_error
from preprocessing.decoding.video import VideoReader
from preprocessing.sharding.reading import read_item
from preprocessing.sources.config import ArraysConfig, FramesConfig, LabelsConfig
from preprocessing.sources.frames import FramesSource
from preprocessing.sources.listing import list_folder
from tests.preprocessing.video_files import ramp, write_video

CAUSES: dict[int, type[Exception]] = {
    errno.EACCES: RejectedInputError,
    errno.EPERM: RejectedInputError,
    errno.ELOOP: RejectedInputError,
    errno.EISDIR: RejectedInputError,
    errno.EINVAL: RejectedInputError,
    errno.EBADMSG: RejectedInputError,
    errno.EMFILE: MachineError,
    errno.ENFILE: MachineError,
    errno.ENOSPC: MachineError,
    errno.EIO: TransientError,
    errno.ESTALE: TransientError,
    errno.ENOENT: TransientError,
}


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    """Have the system refuse to open the files called `name`; a test may run as root, who can read any file."""

    def refusing(opened: Callable[..., Any]) -> Callable[..., Any]:
        def refused(path: Any, *args: Any, **options: Any) -> Any:
            if str(path).endswith(name):
                raise OSError(number, os.strerror(number), str(path))
            return opened(path, *args, **options)

        return refused

    monkeypatch.setattr(input_file, "open", refusing(open), raising=False)
    monkeypatch.setattr(os, "open", refusing(os.open))
    monkeypatch.setattr(Path, "open", refusing(Path.open))


@pytest.mark.parametrize("number", CAUSES, ids=errno.errorcode.get)
def test_the_cause_of_a_failed_opening_decides_what_happens(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, number, "a.mp4")
    with pytest.raises(CAUSES[number]), open_input(f"{tmp_path}/a.mp4"):
        pass


@pytest.mark.parametrize("number", CAUSES, ids=errno.errorcode.get)
def test_the_cause_of_a_failed_read_of_a_video_decides_what_happens(number: int) -> None:
    content = io.BytesIO()
    write_video(content, ramp(5), format="mp4")

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(number, os.strerror(number))

    with pytest.raises(CAUSES[number]):
        VideoReader(Failing(content.getvalue()))


def test_a_rejected_input_is_recorded_at_once_without_the_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EACCES, "a.mp4")

    def clips(item: Item) -> Iterator[Clip]:
        with open_input(f"{tmp_path}/a.mp4"):
            yield from ()

    with pytest.raises(StopIteration) as end:
        next(read_item(clips, Item(key="a", split="train", estimated_bytes=1, path="a.mp4"), 3600))
    record = end.value.value.record()
    assert (record["path"], record["clips"]) == ("a.mp4", 0)
    assert (record["reason"], record["where"]) == ("the file cannot be read", "Permission denied")


def test_a_folder_that_may_not_be_entered_is_no_fault_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    error = reading_error(f"{tmp_path}/a.mp4", PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, MachineError)
    assert "grant this user" in str(error)


def test_an_unreadable_image_rejects_its_folder_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        path = tmp_path / "a" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    source = FramesSource(str(tmp_path), FramesConfig(clip_frames=2), seed=0)
    (item,) = source.items()
    refuse(monkeypatch, errno.EACCES, "1.png")
    with pytest.raises(RejectedInputError) as caught:
        list(source.clips(item))
    assert (caught.value.reason, caught.value.where) == ("the file cannot be read", "1.png; Permission denied")


def test_an_unreadable_array_file_is_rejected_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from preprocessing.sources.arrays import ArraysSource

    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((8, 32, 32, 3), np.uint8))
    refuse(monkeypatch, errno.EACCES, "a.npy")
    source = ArraysSource(str(tmp_path), ArraysConfig(clip_frames=4, labels=LabelsConfig()), seed=0)
    outcomes = {}
    for item in source.items():
        try:
            outcomes[item.path] = len(list(source.clips(item)))
        except RejectedInputError as error:
            outcomes[item.path] = str(error)
    assert outcomes["b.npy"] == 2
    assert "Permission denied" in str(outcomes["a.npy"])


def test_links_in_a_circle_are_not_listed_and_other_errors_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.mp4").write_bytes(b"")
    assert [entry.name for entry in list_folder(str(tmp_path))] == ["a.mp4"]

    class Refused:
        """An entry of a folder that can be listed but not entered."""

        name, path = "b.mp4", f"{tmp_path}/b.mp4"

        def is_dir(self) -> bool:
            raise PermissionError(errno.EACCES, "Permission denied")

    class Scan:
        def __enter__(self) -> Iterator[Refused]:
            return iter([Refused()])

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda folder: Scan())
    with pytest.raises(MachineError, match=f"^{tmp_path}/b.mp4: Permission denied; grant"):
        list(list_folder(str(tmp_path)))
