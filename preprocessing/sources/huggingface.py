"""Video data sets of the Hugging Face Hub: Parquet files with a video per row, on the Hub or in a folder.

`hf://ORG/NAME` is downloaded once per machine, into the cache of huggingface_hub; only its Parquet files are, and no
code of it is run. Files are parsed in the sandbox alone: columns of labels when they are listed, videos when they are
decoded.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cluster.errors import UserError
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage.scratch import scratch_folder
from preprocessing.clip import Clip, Item, RejectedInputError
from preprocessing.parquet_file import DamagedRowError, ParquetFile
from preprocessing.sources.catalogue import Catalogue, make_catalogue
from preprocessing.sources.config import HuggingFaceConfig
from preprocessing.sources.file_source import FileSource
from preprocessing.sources.hub_files import is_hub, list_hub, local_copy
from preprocessing.sources.labels import SPLIT, read_labels
from preprocessing.sources.listing import Entry, resolve
from preprocessing.sources.sandboxed_listing import Listed, ListingSource, read_listing
from preprocessing.sources.videos import BYTES_PER_FRAME, clips_of_video


class ParquetListing(Listed):
    """What a file holds besides videos."""

    rows: int
    labels: dict[str, list[str]]
    """Column -> value of each row."""


class HuggingFaceSource(FileSource[HuggingFaceConfig]):
    """Windows of consecutive frames of the video in each row."""

    untrusted = True

    def fetch(self, item: Item, folder: Path) -> Item:
        """Return an item with the path of its Parquet file on this machine.

        Raises:
            TransientError: the network failed.
        """
        name = item.path.rpartition("#")[0]
        if is_hub(self._path):
            return dataclasses.replace(item, local=local_copy(self._path, name))
        url = resolve(self._base, name)
        return dataclasses.replace(item, local=self._copy(url, folder)) if storage.is_remote(url) else item

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the windows of one video."""
        name, _, number = item.path.rpartition("#")
        path = item.local or resolve(self._base, name)
        try:
            file = self._open(path)
            row = file.row(file.video_column(self._config.column), int(number))
        except DamagedRowError as damage:
            raise RejectedInputError("its row cannot be read", str(damage)) from None
        except UserError as error:
            raise RejectedInputError("its file cannot be read", str(error).removeprefix(f"{path}: ")) from None
        if row.data is None:
            raise RejectedInputError("its row has the path of a video, not its bytes", str(row.path)[:200])
        with io.BytesIO(row.data) as data:
            yield from clips_of_video(item, data, self._config)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a process has one source
    def _open(self, path: str) -> ParquetFile:
        return ParquetFile(path)

    @property
    def _base(self) -> str:
        return self._path if is_hub(self._path) else super()._base

    def _list_inputs(self) -> Catalogue:
        require("pyarrow")
        columns = dict(_named(text) for text in self._config.label_columns)
        entries: list[Entry] = []
        embedded: dict[str, dict[str, str]] = {}
        for file in list_hub(self._path) if is_hub(self._path) else self._inputs.entries():
            if not file.name.endswith(".parquet"):
                continue
            listing = self._listing(file.name, sorted(set(columns.values())))
            for number in range(listing.rows):
                name = f"{file.name}#{number:08d}"
                entries.append(Entry(name, file.size // max(1, listing.rows), file.version))
                embedded[name] = {label: listing.labels[column][number] for label, column in columns.items()}
                if self._config.splits == "file":
                    embedded[name][SPLIT] = "test" if "test" in PurePosixPath(file.name).stem.lower() else "train"
        if not entries:
            raise UserError(f"{self._path}: no .parquet file with rows found; check --source.path")
        reader = read_labels(self._config.labels, tuple(columns))
        return make_catalogue(
            entries, dataclasses.replace(reader, embedded=embedded), seed=self._seed,
            test_fraction=self._config.test_fraction,
            estimate_bytes=lambda entry: self._estimate_bytes(entry.size / BYTES_PER_FRAME),
        )  # fmt: skip

    def _listing(self, name: str, columns: list[str]) -> ParquetListing:
        """Return the rows of a file, read in the sandbox, whose word is checked as if it were the file."""
        url = resolve(self._base, name)
        with scratch_folder("vdsm-parquet-") as scratch:
            if is_hub(self._path):
                path = local_copy(self._path, name)
            else:
                path = self._copy(url, scratch) if storage.is_remote(url) else url
            listing = read_listing(open_listing, json.dumps([path, columns]), ParquetListing, "Parquet")
        if listing.labels.keys() != set(columns) or any(len(row) != listing.rows for row in listing.labels.values()):
            raise UserError(f"{url}: its labels are not those of its rows")
        return listing


def _named(text: str) -> tuple[str, str]:
    """Return label and column of `label=column`, or of a column that is the name of the label, too."""
    label, separator, column = text.partition("=")
    return label, column if separator else label


def open_listing(serialized: str) -> ListingSource:
    """Return the source that gives the listing of a file; called in the sandbox."""
    path, columns = json.loads(serialized)

    def content() -> dict[str, object]:
        file = ParquetFile(path)
        return {"rows": file.rows, "labels": file.labels(columns) if columns else {}}

    return ListingSource(content)
