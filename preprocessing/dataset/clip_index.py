"""The index of a shard in format 3: an Arrow file with a column for each fact about its clips, and a row for each clip.

Columns of fixed size come first: where the frames are, hashes of the names, times, labels and factors. They are read as
views of the mapped file, and each column is checked when it is first used. Names come last, and cost nothing until
they are asked for.
"""

import contextlib
import functools
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Factors, Label
from preprocessing.dataset import arrow_file
from preprocessing.dataset.arrow_file import Column, Kinds, ragged
from preprocessing.dataset.constraints import KEY
from preprocessing.dataset.digests import Digests, digests
from preprocessing.dataset.errors import DamagedDatasetError, damaged_file
from preprocessing.dataset.format import ManifestHead, Sample
from preprocessing.dataset.schema import MAX_TEXT, SchemaError
from preprocessing.dataset.shard_file import MAX_HEADER, ClipLocation

LABEL, FACTOR = "label:", "factor:"
"""Before the name of a label or factor, that of its column."""
_SHAPE = ("frames", "height", "width", "channels")
_FIXED: Kinds = {
    "frames_offset": "int64", "frames_length": "int64", "frames_crc32": "uint32", **dict.fromkeys(_SHAPE, "int32"),
    "key_hash": "uint64", "identity_hash": "uint64", "source_hash": "uint64", "start_s": "float64", "fps": "float64",
}  # fmt: skip
N = TypeVar("N", np.int32, np.float64)
_NAMES: Kinds = {"key": "text", "identity": "text", "source": "text"}


def kinds_of(vocabulary: Iterable[str], factors: Factors) -> Kinds:
    """Return the columns of an index whose clips have these labels and factors."""
    labels = {f"{LABEL}{name}": "int32" for name in vocabulary}
    values = {f"{FACTOR}{name}": "float64" if kind == "clip" else "numbers" for name, kind in factors.items()}
    return {**_FIXED, **labels, **values, **_NAMES}


def encode_clips(samples: Sequence[Sample], vocabulary: Iterable[str], factors: Factors) -> bytes:
    """Return the index of a shard with the given clips.

    Raises:
        SchemaError: a clip has other labels, or a number that the columns cannot hold.
    """
    vocabulary = list(vocabulary)
    for sample in samples:
        if sample["labels"].keys() != {*vocabulary, *factors}:
            raise SchemaError(f"gives clip {sample['key']} other labels than the manifest names")
    columns: dict[str, Column] = {
        "frames_offset": np.array([sample["frames_offset"] for sample in samples], dtype=np.int64),
        "frames_length": np.array([sample["frames_length"] for sample in samples], dtype=np.int64),
        "frames_crc32": np.array([sample["frames_crc32"] for sample in samples], dtype=np.uint32),
        **{name: np.array([s["shape"][axis] for s in samples], dtype=np.int32) for axis, name in enumerate(_SHAPE)},
        "start_s": _exact(samples, [sample["start_s"] for sample in samples], "start_s"),
        "fps": _exact(samples, [sample["fps"] for sample in samples], "fps"),
    }
    for name in ("key", "identity", "source"):
        texts: list[str] = [sample[name] for sample in samples]
        columns[f"{name}_hash"], columns[name] = digests(texts), ragged([text.encode() for text in texts])
    for name in vocabulary:
        columns[f"{LABEL}{name}"] = _labels(samples, name)
    for name, kind in factors.items():
        stored: list[Label] = [sample["labels"][name] for sample in samples]
        if kind == "clip":
            columns[f"{FACTOR}{name}"] = _exact(samples, stored, name)
            continue
        tracks = [value if isinstance(value, list) else [value] for value in stored]
        offsets = np.cumsum([0, *map(len, tracks)]).astype(np.int32)
        values = [_exact([sample] * len(track), track, name) for sample, track in zip(samples, tracks)]
        columns[f"{FACTOR}{name}"] = arrow_file.Ragged(offsets, np.concatenate([np.zeros(0), *values]))
    return arrow_file.encode(columns, kinds_of(vocabulary, factors))


def _exact(samples: Sequence[Sample], values: Sequence[object], name: str) -> NDArray[np.float64]:
    """Return numbers as float64, of which JSON may have larger ones."""
    for sample, value in zip(samples, values):
        if not isinstance(value, int | float) or float(value) != value:
            raise SchemaError(f"gives clip {sample['key']} the {name} {str(value)[:40]}, which is no float64")
    return np.array(values, dtype=np.float64)


def _labels(samples: Sequence[Sample], name: str) -> NDArray[np.int32]:
    values = [sample["labels"][name] for sample in samples]
    if not all(isinstance(value, int) and -(2**31) <= value < 2**31 for value in values):
        raise SchemaError(f"gives a clip no label {name} from the vocabulary")
    return np.array(values, dtype=np.int32)


def labels_in(kinds: Kinds) -> tuple[list[str], Factors]:
    """Return the labels and factors whose columns a file has, which may be any file."""
    labels = [name.removeprefix(LABEL) for name in kinds if name.startswith(LABEL)]
    factors: Factors = {
        name.removeprefix(FACTOR): "frame" if kind == "numbers" else "clip"
        for name, kind in kinds.items()
        if name.startswith(FACTOR)
    }
    return labels, factors


class ClipIndex:
    """The clips of a shard.

    Args:
        url: the dataset.
        path: the file, for errors.
        data: its content, which stays mapped as long as an array of it is in use.
        clips: their number, as the manifest says.
        size_bytes: length of the tar.
        manifest: declares the labels and factors; None takes those of the file, unchecked.

    Raises:
        DamagedDatasetError: the file, or what is asked for, is not as the format declares it. So do all methods.
    """

    def __init__(
        self, url: str, path: str, data: mmap.mmap | bytes, *, clips: int, size_bytes: int,
        manifest: ManifestHead | None = None,
    ) -> None:  # fmt: skip
        self._url, self._path, self._size = url, path, size_bytes
        self._vocabulary = None if manifest is None else manifest["vocabulary"]
        factors: Factors = {} if manifest is None else manifest.get("factors", {})
        expected = None if self._vocabulary is None else kinds_of(self._vocabulary, factors)
        with self._named():
            self._columns = arrow_file.decode(data, expected)
            self._labels, self._factors = labels_in(self._columns.kinds)
            if expected is None and kinds_of(self._labels, self._factors) != self._columns.kinds:
                raise SchemaError("has other columns than those of an index")
        if self._columns.rows != clips:
            raise self._damage(f"lists {self._columns.rows} clips, but the manifest says {clips}")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the file in an error."""
        try:
            yield
        except SchemaError as error:
            raise self._damage(str(error)) from None

    def _damage(self, problem: str) -> DamagedDatasetError:
        return damaged_file(self._url, self._path, problem)

    def _array(self, name: str) -> NDArray[Any]:
        with self._named():
            return self._columns.array(name)

    def _ragged(self, name: str) -> arrow_file.Ragged:
        with self._named():
            return self._columns.ragged(name)

    def __len__(self) -> int:
        return self._columns.rows

    def hashes(self, name: str) -> Digests:
        """Return the hash of each clip's `key`, `identity` or `source`, [N]."""
        return self._array(f"{name}_hash")

    @functools.cached_property
    def frames(self) -> NDArray[np.int32]:
        """The number of frames of each clip, [N]."""
        return self._checked(self._array("frames"), "frames", lambda found: found < 1)

    @functools.cached_property
    def fps(self) -> NDArray[np.float64]:
        """Frames per second of each clip, [N]."""
        rates = self._array("fps")
        return self._checked(rates, "frames per second", lambda found: ~((found > 0) & np.isfinite(found)))

    @functools.cached_property
    def starts_s(self) -> NDArray[np.float64]:
        """Start of each clip in its source, in seconds, [N]."""
        return self._checked(self._array("start_s"), "as start", lambda found: ~np.isfinite(found))

    def labels(self, name: str) -> NDArray[np.int32]:
        """Return the index of each clip's label in its vocabulary, [N]."""
        found: NDArray[np.int32] = self._array(f"{LABEL}{name}")
        values = 2**31 if self._vocabulary is None else len(self._vocabulary[name])
        self._refuse((found < 0) | (found >= values), lambda _: f"no label {name} from the vocabulary")
        return found

    def factor(self, name: str) -> NDArray[np.float64]:
        """Return the value of a factor of clips, [N]."""
        found: NDArray[np.float64] = self._array(f"{FACTOR}{name}")
        self._refuse(~np.isfinite(found), lambda row: f"the {name} {found[row]}, which is not a finite number")
        return found

    def track(self, name: str, row: int) -> NDArray[np.float64]:
        """Return the values of a factor for each frame of a clip, [T]."""
        track: NDArray[np.float64] = self._tracks(name).row(row)
        return track

    def _tracks(self, name: str) -> arrow_file.Ragged:
        column = self._ragged(f"{FACTOR}{name}")
        self._refuse(np.diff(column.offsets) != self.frames, lambda _: f"no value of {name} for each frame")
        if not np.isfinite(column.values).all():
            raise self._damage(f"has values of {name} that are not finite numbers")
        return column

    def key(self, row: int) -> str:
        """Return the key of a clip."""
        return self.name("key", row)

    def name(self, name: str, row: int) -> str:
        """Return the `key`, `identity` or `source` of a clip."""
        return self.names(name, (row,))[0]

    def names(self, name: str, rows: Iterable[int] | None = None) -> list[str]:
        """Return the `key`, `identity` or `source` of some clips, or of all, [N]."""
        column = self._ragged(name)  # checked once for all of them
        with self._named():
            return [self._text(column, name, row) for row in (range(len(self)) if rows is None else rows)]

    def _text(self, column: arrow_file.Ragged, name: str, row: int) -> str:
        text = column.text(row)
        if len(text) > MAX_TEXT:
            raise self._damage(f"samples[{row}].{name} has {len(text):,} characters; it must have at most {MAX_TEXT:,}")
        if name == "key" and not KEY.accepts(text):
            raise self._damage(f"samples[{row}].key is {text[:60]!a}; it must be {KEY}")
        return text

    def location(self, row: int, shard: int) -> ClipLocation:
        """Return where the frames of a clip are in the shard with the given number."""
        offsets, lengths, crc32s, shapes = self._places
        frames, height, width, channels = shapes[row].tolist()
        return ClipLocation(
            shard, int(offsets[row]), int(lengths[row]), int(crc32s[row]), (frames, height, width, channels)
        )

    @functools.cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
        """Offset, length, CRC-32 and shape of the frames of all clips, which lie inside the tar."""
        shapes = np.stack([self._array(name) for name in _SHAPE], axis=1).astype(np.int64)
        offsets, lengths = self._array("frames_offset"), self._array("frames_length")
        # As floats first: a product of four large numbers does not fit into 64 bits.
        values = np.prod(shapes.astype(np.float64), axis=1)
        self._refuse(np.asarray(shapes.min(axis=1) < 1), lambda row: f"a shape of {shapes[row].tolist()}")
        self._refuse(
            ~((values < lengths) & (lengths <= values + MAX_HEADER)),
            lambda row: f"{lengths[row]} bytes for {shapes[row].tolist()} values",
        )
        self._refuse(
            (offsets < 0) | (offsets > self._size - lengths),
            lambda _: f"a place after the end of its shard, which has {self._size} bytes",
        )
        return offsets, lengths, self._array("frames_crc32"), shapes

    def samples(self) -> list[Sample]:
        """Return the clips as the JSON index of earlier formats lists them."""
        keys, identities, sources = (self.names(name) for name in _NAMES)
        labels = {name: self.labels(name).tolist() for name in self._labels}
        labels |= {
            name: self.factor(name).tolist()
            if kind == "clip"
            else [self.track(name, n).tolist() for n in range(len(self))]
            for name, kind in self._factors.items()
        }
        starts, rates, found = self.starts_s.tolist(), self.fps.tolist(), []
        for row, key in enumerate(keys):
            place = self.location(row, 0)
            found.append(
                Sample(
                    key=key, shape=list(place.shape), frames_crc32=place.crc32, frames_length=place.length,
                    frames_offset=place.offset, labels={name: values[row] for name, values in labels.items()},
                    identity=identities[row], source=sources[row], start_s=starts[row], fps=rates[row],
                )
            )  # fmt: skip
        return found

    def _checked(self, values: NDArray[N], what: str, is_wrong: Callable[[NDArray[N]], Any]) -> NDArray[N]:
        self._refuse(np.asarray(is_wrong(values)), lambda row: f"{values[row]} {what}")
        return values

    def _refuse(self, wrong: NDArray[np.bool_], problem: Callable[[int], str]) -> None:
        found = np.flatnonzero(wrong)
        if len(found):
            row = int(found[0])
            raise self._damage(f"gives clip {self.key(row)} {problem(row)}")
