"""Clips that a user names on the command line: videos, folders of images, arrays, or keys of clips of a dataset."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.report.images import Frames
from preprocessing.sources.array_file import ArrayFile, DamagedArrayError, PythonObjectsError

if TYPE_CHECKING:
    from preprocessing.dataset.reader import ClipDataset

ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff")


class ClipList:
    """Clips in memory, readable by the evaluation; they have keys but no labels."""

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
        """Return the frames of one clip: uint8 [T, H, W, C]."""
        return self._clips[index]


def select_clips(clips: "ClipDataset", indices: Sequence[int]) -> ClipList:
    """Return some clips of a split."""
    return ClipList(
        [clips.keys[index] for index in indices],
        [clips.frames(index) for index in indices],
        [float(clips.fps[index]) for index in indices],
    )


def read_clips(
    name: str,
    *,
    size: int,
    channels: int,
    min_frames: int,
    fps: float | None,
    splits: Sequence["ClipDataset"] = (),
    still_frames: int | None = None,
    complete: bool = False,
) -> ClipList:
    """Read the clips that one argument names; an array can hold several clips, everything else is one clip.

    Args:
        name: the key of a clip of `splits`; a video file; a picture; a folder of images, one per frame; or an .npy or
            .npz file with `frames` uint8 [T, H, W, C] or [N, T, H, W, C]. Files may be s3://bucket/key.
        size: height and width of the model's frames, in pixels. Videos and images are cropped to the centre square and
            resized; arrays must have this size.
        channels: number of channels of the model's frames.
        min_frames: minimum number of frames of a clip.
        fps: frames per second at which a video is read; None reads every frame.
        splits: splits of a dataset whose clips can be named by key.
        still_frames: number of times that a still picture is repeated; None if the clip must move.
        complete: read videos to their end; otherwise their first `min_frames` frames.

    Raises:
        UserError: the clip does not exist, is unreadable, too short, or of the wrong size.
    """
    for clips in splits:
        if name in clips.keys:
            return checked(name, select_clips(clips, [clips.keys.index(name)]), size, channels, min_frames)
    if not storage.is_remote(name) and Path(name).is_dir():
        found = _read_folder(Path(name), size, channels)
    elif not storage.exists(name):
        hint = " and no clip with this key in the data" if splits else "; to name a clip by its key, give --data"
        raise UserError(f"{name}: there is no such file{hint}")
    elif name.endswith((".npy", ".npz")):
        found = _read_array(name)
    else:
        found = _read_picture(name, size, channels) or _read_video(
            name, size, channels, None if complete else min_frames, fps, still=still_frames is not None
        )
    if still_frames is not None:
        found = _repeat_stills(found, still_frames)
    elif all(len(found.frames(index)) == 1 for index in range(len(found))):
        raise UserError(f"{name}: is a still picture, which shows no action; give a video, or give it to --static-of")
    return checked(name, found, size, channels, min_frames)


def concatenate(lists: Sequence[ClipList]) -> ClipList:
    """Return several lists of clips as one."""
    return ClipList(
        [key for clips in lists for key in clips.keys],
        [clips.frames(index) for clips in lists for index in range(len(clips))],
        [value for clips in lists for value in clips.fps],
    )


def _repeat_stills(clips: ClipList, count: int) -> ClipList:
    """Return clips whose stills have so many frames."""
    frames = [clips.frames(index) for index in range(len(clips))]
    return ClipList(
        clips.keys, [one.repeat(count, axis=0) if len(one) == 1 else one for one in frames], list(clips.fps)
    )


def _read_picture(path: str, size: int, channels: int) -> ClipList | None:
    """Return a still picture as a clip of one frame; None if the file is something else."""
    from PIL import Image, UnidentifiedImageError

    from preprocessing.clip import RejectedInputError, TransientError
    from preprocessing.decoding.input_file import open_input
    from preprocessing.decoding.transform import FrameTransform
    from preprocessing.decoding.video import MAX_PIXELS
    from preprocessing.sources.frames import read_image

    try:
        with open_input(path) as file:
            try:
                with Image.open(file) as image:
                    if image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False):
                        return None
            except (UnidentifiedImageError, ValueError):
                return None
            file.seek(0)
            frame = read_image(file, FrameTransform(size, channels), max_pixels=MAX_PIXELS)
    except (RejectedInputError, TransientError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: {error}; give another picture") from error
    return ClipList([path], [frame[None]])


def _read_video(path: str, size: int, channels: int, frames: int | None, fps: float | None, *, still: bool) -> ClipList:
    """Return a video, or its first `frames` frames, as one clip.

    With `still`, a single frame suffices, such as that of a HEIC picture.
    """
    from preprocessing.clip import RejectedInputError, TransientError
    from preprocessing.decoding.video import read_video

    try:
        try:
            pixels, rate = read_video(path, size=size, channels=channels, frames=frames, fps=fps)
        except RejectedInputError as error:
            if not still or error.reason != "too short":
                raise
            pixels, rate = read_video(path, size=size, channels=channels)
            if len(pixels) > 1:
                raise
    except RejectedInputError as error:
        raise UserError(f"{path}: {error}; give another video") from error
    except TransientError as error:
        raise UserError(f"{path}: {error}") from error
    return ClipList([path], [pixels], [rate])


def _read_folder(folder: Path, size: int, channels: int) -> ClipList:
    from preprocessing.clip import RejectedInputError, TransientError
    from preprocessing.decoding.input_file import open_input
    from preprocessing.decoding.transform import FrameTransform
    from preprocessing.decoding.video import MAX_PIXELS
    from preprocessing.sources.frames import read_image

    paths = sorted((path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES), key=_by_number)
    if not paths:
        raise UserError(f"{folder}: contains no image; give a video, or a folder with one image per frame")
    transform = FrameTransform(size, channels)
    frames = []
    for path in paths:
        try:
            with open_input(str(path)) as file:
                frames.append(read_image(file, transform, max_pixels=MAX_PIXELS))
        except (RejectedInputError, TransientError) as error:
            raise UserError(f"{path}: not a readable image ({error})") from error
    return ClipList([str(folder)], [np.stack(frames)])


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame_2 before frame_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _read_array(path: str) -> ClipList:

    try:
        file = ArrayFile(path)
        name = "" if "" in file.headers else "frames"
        if name not in file.headers:
            raise UserError(f"{path}: has no array `frames`; save it with numpy.savez(file, frames=...)")
        if name:
            file.verify(name)
        array = np.array(file.array(name))
    except PythonObjectsError:
        raise UserError(f"{path}: contains Python objects, which are not read; save frames as uint8") from None
    except DamagedArrayError as damage:
        raise UserError(f"{path}: not a readable array ({damage})") from None
    if array.ndim == 3 and array.shape[-1] in (1, 3):  # one frame
        array = array[None]
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or not array.size:
        raise UserError(
            f"{path}: contains {array.dtype} {list(array.shape)}; it must be uint8 [T, H, W, C] or [N, T, H, W, C]"
        )
    if array.ndim == 4:
        return ClipList([path], [array])
    return ClipList([f"{path}[{number}]" for number in range(len(array))], list(array))


def checked(name: str, clips: ClipList, size: int, channels: int, min_frames: int) -> ClipList:
    """Return the clips if their size and length suffice; raise UserError otherwise."""
    for index in range(len(clips)):
        clip = clips.frames(index)
        if clip.shape[1:] != (size, size, channels):
            raise UserError(
                f"{name}: has frames of {'x'.join(map(str, clip.shape[1:]))}, but the model expects "
                f"{size}x{size}x{channels}; resize them, or give a video, which is resized"
            )
        if len(clip) < min_frames:
            raise UserError(f"{name}: has {len(clip)} frames, but {min_frames} are needed; give a longer clip")
    return clips
