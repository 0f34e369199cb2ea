"""The statistics in the manifest equal plain counts over all clips."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.storage import api as storage
from preprocessing.clip import Clip, Factors, Item, check
from preprocessing.dataset import statistics
from preprocessing.dataset.format import MANIFEST, VERSION, encode_json, index_path
from preprocessing.dataset.reader import ClipDataset
from preprocessing.dataset.statistics import Statistics
from preprocessing.sharding.plan import ShardPlan
from preprocessing.sharding.write_shard import write_shard


def test_totals_of_a_dataset_are_those_of_its_clips(figures_dataset: Path) -> None:
    for split in ("train", "test"):
        clips = ClipDataset(str(figures_dataset), split)
        frames = np.stack([clips.frames(index) for index in range(len(clips))]).astype(np.float64)
        totals = clips.manifest["splits"][split]
        assert (totals["clips"], totals["frames"]) == (len(clips), frames.shape[0] * frames.shape[1])
        assert totals["seconds"] == pytest.approx(len(clips) * 8 / 8.0)
        assert totals["clip_lengths"] == {"8": len(clips)}
        assert totals["identities"] == totals["groups"] == totals["inputs"] == len(set(clips.identities))
        np.testing.assert_allclose(totals["pixel_mean"], frames.mean(axis=(0, 1, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(totals["pixel_std"], frames.std(axis=(0, 1, 2, 3)), atol=1e-4)
        for name, column in clips.labels.items():
            counts = Counter(column.tolist())
            assert totals["label_counts"][name] == [counts[value] for value in range(len(clips.vocabulary[name]))]
        shards = [shard for shard in clips.manifest["shards"] if shard["split"] == split]
        assert sum(shard["frames"] for shard in shards) == totals["frames"]


class Waves:
    """Clips of several lengths with continuous factors, per clip and per frame."""

    untrusted = False

    def __init__(self) -> None:
        self.vocabulary = {"action": ["one", "two"]}
        self.factors: Factors = {"weight": "clip", "angle": "frame"}

    def items(self) -> list[Item]:
        return [Item(key=f"w{n}", split="train", estimated_bytes=1) for n in range(4)]

    def fingerprint(self) -> str:
        return ""

    def clips(self, item: Item) -> Iterator[Clip]:
        number = int(item.key[1:])
        draw = np.random.default_rng(number)
        for part in range(number + 1):
            length = 2 + part
            yield Clip(
                key=f"{item.key}-{part}",
                frames=draw.integers(0, 256, (length, 6, 5, 1), dtype=np.uint8),
                labels={"action": part % 2, "weight": draw.normal(), "angle": draw.normal(size=length).tolist()},
                identity=item.key, source="waves", start_s=0.25 * part, fps=25.0 + part,
            )  # fmt: skip


def write_indexes(folder: Path) -> list[dict[str, object]]:
    """Write two shards of waves and return their indexes."""
    items = Waves().items()
    indexes = []
    for number, group in enumerate((items[:1], items[1:])):
        shard = ShardPlan(f"train/shard-{number:06d}.tar", "train", tuple(group))
        write_shard(str(folder), "plan", shard, Waves())
        indexes.append(json.loads((folder / shard.index_path).read_text()))
    return indexes


def test_counts_of_shards_add_up(tmp_path: Path) -> None:
    clips = [clip for item in Waves().items() for clip in Waves().clips(item)]
    summed = statistics.total((index["statistics"] for index in write_indexes(tmp_path)), Waves().vocabulary)  # type: ignore[misc]
    pixels = np.concatenate([clip.frames.ravel() for clip in clips]).astype(np.float64)
    weights = np.array([clip.labels["weight"] for clip in clips])
    angles = np.concatenate([clip.labels["angle"] for clip in clips])
    assert summed["frames"] == sum(len(clip.frames) for clip in clips)
    assert summed["seconds"] == pytest.approx(sum(len(clip.frames) / clip.fps for clip in clips))
    assert summed["clip_lengths"] == {
        str(n): count for n, count in sorted(Counter(len(c.frames) for c in clips).items())
    }
    assert summed["label_counts"] == {"action": [sum(c.labels["action"] == v for c in clips) for v in (0, 1)]}
    np.testing.assert_allclose(summed["pixel_mean"], [pixels.mean()], atol=1e-4)
    np.testing.assert_allclose(summed["pixel_std"], [pixels.std()], atol=1e-4)
    for name, values in (("weight", weights), ("angle", angles)):
        found = summed["factors"][name]
        assert (found["min"], found["max"]) == (values.min(), values.max())
        assert found["mean"] == pytest.approx(values.mean())


def test_the_deviation_keeps_its_digits_where_values_hardly_vary() -> None:
    frames = np.full((100, 64, 64, 3), 255, np.uint8)
    frames[0, 0, 0] = 254
    counts = Statistics(Waves())
    for number in range(20):
        counts.add(Clip(f"k{number}", frames, {"action": 0, "weight": 0.0, "angle": [0.0]}, "i", "s", 0.0, 25.0))
    # The textbook formula in floating point gives 0 or less here.
    share = 1 / frames[..., 0].size
    expected = np.sqrt(share * (1 - share))
    np.testing.assert_allclose(
        statistics.pixel_moments(counts.content()["pixels"])["pixel_std"], [expected] * 3, atol=1e-4
    )


def test_continuous_factors_are_read_back_to_the_last_digit(tmp_path: Path) -> None:
    indexes = write_indexes(tmp_path)
    # The reader needs no more of a manifest than this.
    entries = [
        {
            "path": index["shard"], "split": "train", "clips": index["clips"], "size_bytes": index["size_bytes"],
            "sha256": index["sha256"], "index": index_path(str(index["shard"])),
            "index_sha256": hashlib.sha256((tmp_path / index_path(str(index["shard"]))).read_bytes()).hexdigest(),
        }
        for index in indexes
    ]  # fmt: skip
    about = {"vocabulary": Waves().vocabulary, "factors": Waves().factors, "splits": {"train": {}}, "shards": entries}
    storage.write_bytes(str(tmp_path / MANIFEST), encode_json({"schema_version": VERSION} | about))
    dataset = ClipDataset(str(tmp_path), "train")
    clips = [clip for item in Waves().items() for clip in Waves().clips(item)]
    assert dataset.keys == [clip.key for clip in clips]
    assert dataset.labels.keys() == {"action"}
    assert dataset.factors["weight"].tolist() == [clip.labels["weight"] for clip in clips]
    assert dataset.fps.tolist() == [clip.fps for clip in clips]
    for index, clip in enumerate(clips):
        assert {name: track.tolist() for name, track in dataset.tracks(index).items()} == {
            "angle": clip.labels["angle"]
        }
        np.testing.assert_array_equal(dataset.frames(index), clip.frames)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"action": 2, "weight": 0.0, "angle": [0.0, 0.0]}, "label action is 2; it must be an index below 2"),
        ({"action": 0, "weight": 0.0}, "labels .* are not those of the source"),
        ({"action": 0, "weight": [0.0], "angle": [0.0, 0.0]}, "factor weight needs one value per clip"),
        ({"action": 0, "weight": 0.0, "angle": [0.0]}, "factor angle needs one value per frame"),
        ({"action": 0, "weight": float("nan"), "angle": [0.0, 0.0]}, "factor weight is not a finite number"),
    ],
)
def test_labels_that_the_source_did_not_declare_are_refused(labels: dict[str, object], message: str) -> None:
    frames = np.zeros((2, 4, 4, 1), np.uint8)
    with pytest.raises(ValueError, match=message):
        check(Clip("key", frames, labels, "i", "s", 0.0, 25.0), Waves())  # type: ignore[arg-type]
