"""The HDF5 layout of MSD-Benchmark: what is written, and read, is what the dataset holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from preprocessing.dataset.hdf5 import Hdf5Clips, write_hdf5
from preprocessing.dataset.reader import ClipDataset
from vdsm.data import ClipTensors

h5py = pytest.importorskip("h5py", reason="pip install 'vdsm-pipeline[h5]'")


@pytest.fixture(scope="module")
def written(small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("h5") / "figures.h5"
    write_hdf5(str(small_figures), path, frames=4)
    return path


def test_the_file_has_the_layout_that_the_benchmark_reads(written: Path, small_figures: Path) -> None:
    train, test = (ClipDataset(str(small_figures), split) for split in ("train", "test"))
    with h5py.File(written, "r") as file:
        classes = json.loads(file.attrs["classes"])
        assert list(classes) == list(train.vocabulary)
        assert {name: entry["type"] for name, entry in classes.items()} == {
            name: "dynamic" if name == "action" else "static" for name in classes
        }
        assert classes["action"]["values"] == {name: i for i, name in enumerate(train.vocabulary["action"])}
        assert file["data"].shape == (len(train) + len(test), 4, 3, 32, 32)
        parts = {split: file[f"{split}_indices"][:] for split in ("train", "val", "test")}
        joined = np.concatenate(list(parts.values()))
        assert sorted(joined) == list(range(len(train) + len(test)))
        names = [*train.identities, *test.identities]
        known = {split: {names[index] for index in chosen} for split, chosen in parts.items()}
        assert not known["train"] & known["val"]
        assert len(known["val"]) == round(0.1 * len(set(train.identities)))
        first = int(parts["test"][0])
        assert np.array_equal(file["data"][first], test.frames(0)[:4].transpose(0, 3, 1, 2))
        assert file["labels"][first, classes["action"]["index"]] == test.labels["action"][0]


def test_it_is_read_as_the_clips_of_the_dataset(written: Path, small_figures: Path) -> None:
    test, found = ClipDataset(str(small_figures), "test"), Hdf5Clips(written, "test")
    assert len(found) == len(test)
    assert found.vocabulary == test.vocabulary
    for index in range(len(test)):
        assert np.array_equal(found.frames(index), test.frames(index)[:4])
    for name, values in test.labels.items():
        assert np.array_equal(found.labels[name], values)
    same = {(one, two) for one, two in zip(found.identities, test.identities)}
    assert len(same) == len(set(test.identities)) == len(set(found.identities))
    assert ClipTensors(found)[0]["frames"].shape == (4, 32, 32, 3)


def _without(name: str) -> Callable[[Any], None]:
    return lambda file: file.__delitem__(name)


def _classes(**changes: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        classes = json.loads(file.attrs["classes"])
        classes["action"] |= changes
        file.attrs["classes"] = json.dumps(classes)

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("labels"), "has no dataset labels; it is not of the layout"),
        (_without("test_indices"), "has no dataset test_indices"),
        (lambda file: file.attrs.__delitem__("classes"), "its attribute classes is missing or damaged"),
        (lambda file: file.attrs.__setitem__("classes", "[1]"), "its attribute classes is missing or damaged"),
        (_classes(index=7), "the columns of its factors are not numbered from 0"),
        (_classes(values={"walk": 3}), "the values of action are not numbered from 0"),
        (_classes(values={"walk": 0}), "labels of action are not all from 0 to 0"),
        (lambda file: file["test_indices"].__setitem__(0, 10**6), "test_indices names clips that are not in data"),
    ],
)
def test_a_file_of_another_layout_is_refused_in_one_line(
    damage: Callable[[Any], None], message: str, written: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(written.read_bytes())
    with h5py.File(copy, "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=message):
        Hdf5Clips(copy, "test")


def test_what_cannot_be_written_or_read_is_reported(written: Path, small_figures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists; delete it"):
        write_hdf5(str(small_figures), written)
    with pytest.raises(UserError, match="frames is 99; it must be from 1 to 8"):
        write_hdf5(str(small_figures), tmp_path / "x.h5", frames=99)
    (tmp_path / "no.h5").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        Hdf5Clips(tmp_path / "no.h5", "train")
