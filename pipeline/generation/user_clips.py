"""Clips that a user names on the command line: video files, folders of frames, arrays, or clips of a dataset by key."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage

if TYPE_CHECKING:
    from preprocessing.dataset.reader import ClipDataset

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, C]."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff")


class ClipList:
    """Clips in memory, as the evaluation reads them; nothing is known of them but their names."""

    def __init__(self, keys: Sequence[str], clips: Sequence[Frames], fps: Sequence[float] = ()) -> None:
        self.keys, self._clips = list(keys), list(clips)
        self.identities = self.keys
        self.labels: dict[str, NDArray[np.int64]] = {}
        self.vocabulary: dict[str, list[str]] = {}
        self.clip_frames = [len(clip) for clip in clips]
        self.fps = np.array(fps, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.keys)

    def frames(self, index: int) -> Frames:
        """Frames of one clip: uint8 [T, H, W, C]."""
        return self._clips[index]


def of_dataset(clips: "ClipDataset", indices: Sequence[int]) -> ClipList:
    """Some clips of a split."""
    return ClipList(
        [clips.keys[index] for index in indices],
        [clips.frames(index) for index in indices],
        [float(clips.fps[index]) for index in indices],
    )


def read_clips(
    word: str, *, size: int, channels: int, frames: int, fps: float | None, splits: Sequence["ClipDataset"] = ()
) -> ClipList:
    """The clips that one word of the command line names; an array can hold several, all else is one.

    Args:
        word: the key of a clip of `splits`; a video file; a folder of pictures, one per frame; or an .npy or .npz file
            with `frames` uint8 [T, H, W, C] or [N, T, H, W, C]. Files may be s3://bucket/key.
        size: height and width of the model's frames. Videos and pictures keep their middle and are resized; arrays are
            taken as they are.
        channels: of the model's frames.
        frames: fewest frames that are needed.
        fps: frames per second to take of a video; none takes every frame.
        splits: data whose clips can be named by key.

    Raises:
        UserError: there is no such clip, it cannot be read, is too short, or has another size.
    """
    for clips in splits:
        if word in clips.keys:
            return _checked(word, of_dataset(clips, [clips.keys.index(word)]), size, channels, frames)
    if not storage.is_s3(word) and Path(word).is_dir():
        found = _folder(Path(word), size, channels)
    elif not storage.exists(word):
        also = " and no clip of this key in the data" if splits else "; to name a clip by its key, give --data"
        raise UserError(f"{word}: there is no such file{also}")
    elif word.endswith((".npy", ".npz")):
        found = _array(word)
    else:
        found = _video(word, size, channels, frames, fps)
    return _checked(word, found, size, channels, frames)


def joined(lists: Sequence[ClipList]) -> ClipList:
    """Several lists of clips as one."""
    return ClipList(
        [key for clips in lists for key in clips.keys],
        [clips.frames(index) for clips in lists for index in range(len(clips))],
        [value for clips in lists for value in clips.fps],
    )


def _video(word: str, size: int, channels: int, frames: int, fps: float | None) -> ClipList:
    from preprocessing.clip import RejectedInputError, TransientError
    from preprocessing.decoding.video import read_video

    try:
        pixels, rate = read_video(word, size=size, channels=channels, frames=frames, fps=fps)
    except RejectedInputError as error:
        raise UserError(f"{word}: {error}; give another video") from error
    except TransientError as error:
        raise UserError(f"{word}: {error}") from error
    return ClipList([word], [pixels], [rate])


def _folder(folder: Path, size: int, channels: int) -> ClipList:
    from PIL import Image

    from preprocessing.decoding.transform import FrameTransform

    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=_by_number)
    if not paths:
        raise UserError(f"{folder}: holds no picture; give a video, or a folder with one picture per frame")
    transform = FrameTransform(size, channels)
    shown = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                shown.append(transform(picture.convert("RGB")))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: is not a picture that can be read ({error})") from error
    return ClipList([str(folder)], [np.stack(shown)])


def _by_number(path: Path) -> list[tuple[int, str]]:
    """An order in which frame_2 comes before frame_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _array(word: str) -> ClipList:
    try:
        loaded = np.load(io.BytesIO(storage.read_bytes(word)), allow_pickle=False)
        array = loaded["frames"] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except KeyError:
        raise UserError(f"{word}: has no array `frames`; save it with numpy.savez(file, frames=...)") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{word}: is not an array that can be read ({error})") from error
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or not array.size:
        raise UserError(
            f"{word}: holds {array.dtype} {list(array.shape)}; it must be uint8 [T, H, W, C] or [N, T, H, W, C]"
        )
    if array.ndim == 4:
        return ClipList([word], [array])
    return ClipList([f"{word}[{number}]" for number in range(len(array))], list(array))


def _checked(word: str, clips: ClipList, size: int, channels: int, frames: int) -> ClipList:
    for index in range(len(clips)):
        clip = clips.frames(index)
        if clip.shape[1:] != (size, size, channels):
            raise UserError(
                f"{word}: has frames of {'x'.join(map(str, clip.shape[1:]))}, but the model was made for "
                f"{size}x{size}x{channels}; resize them, or give a video, which is resized"
            )
        if len(clip) < frames:
            raise UserError(f"{word}: has {len(clip)} frames, but {frames} are needed; give a longer clip")
    return clips
