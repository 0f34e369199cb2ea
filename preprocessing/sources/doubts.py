"""Which files next to videos are hardly videos, judged by their names, sizes and first bytes.

Some are skipped. Others are read all the same, because names can be wrong, but the split is not drawn over them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing.sources.listing import Entry, resolve

NOT_VIDEOS = frozenset(
    {
        ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".md", ".rst", ".html",
        ".pdf", ".log", ".nfo", ".srt", ".vtt", ".ass", ".sha256", ".md5", ".jpg", ".jpeg", ".png", ".bmp", ".tif",
        ".tiff", ".npy", ".npz", ".pt", ".pkl", ".db", ".zip", ".tar", ".gz", ".xz", ".py", ".sh", ".ipynb",
        ".wav", ".mp3", ".aac", ".m4a", ".flac", ".opus", ".wma", ".align", ".lab", ".textgrid", ".eaf", ".part",
        ".crdownload", ".lnk", ".url", ".webloc", ".bak",
    }
)  # fmt: skip
"""Suffixes of files that are often stored next to videos; skipped in folders unless the user names the file."""
VIDEOS = frozenset(
    {
        ".3g2", ".3gp", ".amv", ".apng", ".asf", ".av1", ".avi", ".avif", ".avifs", ".dav", ".divx", ".dv", ".f4v",
        ".flv", ".gif", ".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v",
        ".mjpeg", ".mjpg", ".mjp2", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf",
        ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".swf", ".ts", ".vob", ".webm", ".webp",
        ".wmv", ".wtv", ".y4m",
    }
)  # fmt: skip
"""Suffixes of videos."""
SMALLEST = 100
"""A video of two frames or more has at least so many bytes."""
FEW = 200
"""Up to this many files, the first bytes of each are read: with few inputs, a handful of others would fill a split."""
_HEAD = 512
_NOT_IN_TEXT = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))


def find_doubts(entries: Sequence[Entry], base: str) -> dict[str, str]:
    """Return the names of the files that are hardly videos, each with the reason.

    Args:
        entries: the files.
        base: folder or s3:// prefix of the files.
    """
    found = {entry.name: f"it has only {entry.size} bytes" for entry in entries if entry.size < SMALLEST}
    if any(_suffix(entry) in VIDEOS for entry in entries):
        unusual = (entry for entry in entries if _suffix(entry) not in VIDEOS)
        found |= {entry.name: "its name is not that of a video" for entry in unusual}
    if len(entries) <= FEW:
        others = [entry for entry in entries if entry.name not in found]
        with ThreadPoolExecutor(16) as pool:
            texts = pool.map(lambda entry: _is_text(resolve(base, entry.name)), others)
            found |= {entry.name: "it holds text" for entry, text in zip(others, texts, strict=True) if text}
    return found


def _suffix(entry: Entry) -> str:
    return PurePosixPath(entry.name).suffix.lower()


def _is_text(url: str) -> bool:
    """Return whether a file begins like text; of the videos, only .y4m does. False if it cannot be read."""
    try:
        head = storage.read_range(url, 0, _HEAD)
    except StorageError:
        return False
    return len(head.translate(None, _NOT_IN_TEXT)) == len(head) and not head.startswith(b"YUV4MPEG2")
