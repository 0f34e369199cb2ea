"""The recipe that is recommended: it fits the data and the machine, and says why."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import UserError
from pipeline.recommendation.choices import choose
from pipeline.recommendation.doubts import doubts
from pipeline.recommendation.draft import Draft
from pipeline.recommendation.hardware import Hardware, this_machine
from pipeline.recommendation.kinds import KINDS, LONG_VIDEO_S
from pipeline.recommendation.recommend import recommendation
from pipeline.recommendation.survey import PixelSurvey, Survey
from pipeline.recommendation.text import recipe_text
from pipeline.training.plan import StagePlan
from preprocessing.appearance.pairs import MinedPairs
from tests.pipeline.recommendation.made_videos import write_videos

MACHINE = Hardware(cores=2, memory_bytes=16 * 10**9, gpus=0, gpu_memory_bytes=0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))


def dataset(**changes: Any) -> Survey:
    """Return a dataset that is good in every respect: drawn figures, 300 looks, six clips each."""
    import numpy as np

    pairs = MinedPairs.of(
        2, np.zeros((0, 2), dtype=np.int64), np.zeros(0), mutual_share=1.0, random_distances=np.array([0.5])
    )
    good = Survey(
        clips=1800, test_clips=300, identities=300, labels=("action",), videos=None, video_s=0.0, min_frames=8,
        max_frames=8, fps=8.0, frame_shape=(64, 64, 3),
        pixels=PixelSurvey(clips=128, flat_share=0.9, colourfulness=30, moving_share=0.1, still_share=0.0),
        descriptor="colour", neighbours=8, pairs=pairs, looks=300, paired_share=1.0, pair_distance=0.02,
        agreement={"identity": 1.0, "action": 0.0}, chance={"identity": 0.01, "action": 0.2},
    )  # fmt: skip
    return replace(good, **changes)


def filmed(**changes: Any) -> Survey:
    pixels = PixelSurvey(clips=128, flat_share=0.06, colourfulness=12, moving_share=0.03, still_share=0.0)
    return dataset(**{"pixels": pixels, "videos": 200, "video_s": 4.0, "min_frames": 16, "max_frames": 16} | changes)


def test_good_data_gives_no_warning() -> None:
    for found in (dataset(), filmed()):
        assert doubts(found, choose(found, MACHINE)) == []


@pytest.mark.parametrize(("kind", "found"), [("drawn", dataset()), ("filmed", filmed())])
def test_what_the_data_does_not_decide_is_that_of_the_recipe_of_its_kind(kind: str, found: Survey) -> None:
    draft, base = choose(found, MACHINE), Draft.of(KINDS[kind].recipe)
    assert draft.base == base.base == KINDS[kind].recipe
    for path in ("training.stage1.learning_rate", "training.stage2.annealing.dynamics.end", "model.encoder_hidden"):
        assert draft.get(path) == base.get(path)
    assert draft.recipe().training.stage1.annealing == base.recipe().training.stage1.annealing


@pytest.mark.parametrize(("size", "layers"), [(32, 3), (64, 4), (128, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_networks_fit_the_frames(size: int, layers: int, channels: int) -> None:
    model = choose(dataset(frame_shape=(size, size, channels)), MACHINE).recipe().model
    assert (model.frame_size, model.channels) == (size, channels)
    assert (len(model.encoder_channels), len(model.decoder_channels)) == (layers, layers)


@pytest.mark.parametrize("shape", [(48, 48, 3), (64, 32, 3), (64, 64, 4)])
def test_frames_that_no_model_takes_are_one_line(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="frames are {}x{}x{}; the model needs squares".format(*shape)):
        choose(dataset(frame_shape=shape), MACHINE)


@pytest.mark.parametrize("kind", [dataset, filmed])
@pytest.mark.parametrize(("looks", "unit", "fraction"), [(29, "clip", 0.05), (30, "group", 0.1)])
def test_where_looks_are_few_validation_takes_none_of_them(
    kind: Callable[..., Survey], looks: int, unit: str, fraction: float
) -> None:
    training = choose(kind(looks=looks), MACHINE).recipe().training
    assert (training.validation_unit, training.validation_fraction) == (unit, fraction)


def test_more_looks_get_more_experts() -> None:
    few, many = (choose(dataset(looks=looks), MACHINE).recipe().model for looks in (300, 1200))
    assert few.num_experts < many.num_experts
    assert all(model.num_experts % model.static_groups == 0 for model in (few, many))


def test_labels_never_decide_the_pairs() -> None:
    found = dataset(labels=("action", "identity"))
    draft = choose(found, MACHINE)
    assert draft.get("training.stage1.pairing") == "appearance"
    assert (
        "The 300 identities of the dataset are not read; `identity` would" in draft.reasons["training.stage1.pairing"]
    )


@pytest.mark.parametrize(
    ("changes", "pairing"),
    [
        ({"paired_share": 0.9}, "appearance"),
        ({"paired_share": 0.2, "video_s": LONG_VIDEO_S - 1}, "appearance"),
        ({"paired_share": 0.2, "video_s": LONG_VIDEO_S}, "video"),
        ({"paired_share": 0.9, "pair_distance": 0.4, "video_s": LONG_VIDEO_S}, "video"),
        ({"paired_share": 0.2, "video_s": 0.0, "videos": None}, "appearance"),
    ],
)
def test_windows_of_a_video_are_paired_if_nothing_looks_alike_and_videos_are_long(
    changes: dict[str, Any], pairing: str
) -> None:
    draft = choose(filmed(**changes), MACHINE)
    assert draft.get("training.stage1.pairing") == pairing
    assert draft.recipe().training.stage1.annealing.static_consistency > 0


def test_neighbours_are_those_among_which_pairs_were_found() -> None:
    for number in (4, 8):
        assert choose(filmed(neighbours=number), MACHINE).recipe().training.appearance.neighbours == number


def test_grey_frames_are_compared_by_their_texture() -> None:
    grey = choose(dataset(descriptor="texture"), MACHINE)
    assert grey.get("training.appearance.descriptor") == "texture"
    assert choose(dataset(), MACHINE).get("training.appearance.descriptor") == "colour"


@pytest.mark.parametrize("shortest", [1, 3, 8, 16, 60, 500])
def test_windows_are_within_the_shortest_clip(shortest: int) -> None:
    training = choose(dataset(min_frames=shortest, max_frames=500), MACHINE).recipe().training
    assert 1 <= training.stage1.clip_frames <= max(1, shortest // 2)
    assert training.stage2.clip_frames == min(shortest, 60)
    assert (training.stage2.num_decoded_frames or 0) <= training.stage2.clip_frames
    assert (training.stage2.num_decoded_frames == 4) == (shortest > 16)


def test_more_clips_get_more_steps_within_limits() -> None:
    base = Draft.of("quickstart.yaml")
    steps = [
        tuple(choose(dataset(clips=clips), MACHINE).get(f"training.stage{stage}.steps") for stage in (1, 2))
        for clips in (100, 1800, 9000, 10**6)
    ]
    assert steps[0] == steps[1] == tuple(base.get(f"training.stage{stage}.steps") for stage in (1, 2))
    assert steps[2] == (round(18 * 9000 / 24, -2), steps[2][1])
    assert steps[3] == (10_000, 4_000)
    assert steps[1] < steps[2] < steps[3]


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (5, 4, 1), (16, 8, 2), (96, 8, 4)]
)
def test_workers_share_a_batch_and_the_cores(cores: int, workers: int, threads: int) -> None:
    training = choose(dataset(), replace(MACHINE, cores=cores)).recipe().training
    assert (training.num_workers, training.threads_per_worker) == (workers, threads)
    assert not training.use_gpu


def test_each_gpu_gets_a_worker() -> None:
    machine = Hardware(cores=32, memory_bytes=10**11, gpus=4, gpu_memory_bytes=16 * 10**9)
    training = choose(dataset(), machine).recipe().training
    assert (training.num_workers, training.threads_per_worker, training.use_gpu) == (4, 4, True)


def test_batches_are_split_until_they_fit_the_memory() -> None:
    whole = choose(dataset(), MACHINE).recipe().training
    split = choose(dataset(), replace(MACHINE, memory_bytes=3 * 10**8)).recipe().training
    assert whole.stage1.accumulation == 1 < split.stage1.accumulation <= split.stage1.batch_clips // split.num_workers
    assert choose(dataset(), replace(MACHINE, memory_bytes=None)).recipe().training == whole


def test_clips_that_exchange_codes_stay_together_however_little_memory_there_is() -> None:
    machine = Hardware(cores=32, memory_bytes=10**11, gpus=8, gpu_memory_bytes=10**7)
    training = choose(filmed(), machine).recipe().training
    assert (training.num_workers, training.stage1.accumulation) == (6, 2)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"clips": 76}, "76 training clips are few (at least 300 are better)"),
        ({"looks": 12}, "12 distinct looks are few (at least 30 are better)"),
        ({"looks": 6}, "validation holds out single clips, because none of 6 distinct looks can be spared"),
        ({"videos": 1800}, "each of the 1,800 videos gives a single clip"),
        ({"paired_share": 0.3}, "70% of clips look like no clip of another video"),
        ({"pair_distance": 0.4}, "pairs are hardly more alike (distance 0.400) than clips at random (0.500)"),
        ({"pixels": PixelSurvey(128, 0.06, 12, 0.0, 0.25)}, "25% of 128 sampled clips hardly move"),
        ({"min_frames": 4}, "the shortest clip has 4 frames"),
        ({"test_clips": 0}, "the dataset has no test split"),
        ({"agreement": {"identity": 0.5, "action": 0.2}}, "only 50% of pairs show one identity"),
        ({"agreement": {"identity": 0.9, "action": 0.6}}, "60% of pairs show one action (by chance 20%)"),
    ],
)
def test_what_is_doubtful_is_named_with_its_number(changes: dict[str, Any], warning: str) -> None:
    found = filmed(**changes)
    assert any(line.startswith(warning) or warning in line for line in doubts(found, choose(found, MACHINE)))


def test_the_text_is_that_of_the_recipe_with_a_reason_for_each_setting(tmp_path: Path) -> None:
    url = write_videos(tmp_path / "data", people=6)
    text, warnings = recommendation(url, 0, MACHINE)
    assert text == recommendation(url, 0, MACHINE)[0]
    lines = text.splitlines()
    settings = [n for n, line in enumerate(lines) if not line.lstrip().startswith("#") and not line.endswith(":")]
    assert len(settings) > 15
    assert all(lines[n - 1].lstrip().startswith("# ") for n in settings)
    assert all(len(line) <= 120 or url in line for line in lines)
    assert warnings
    for warning in warnings:
        assert f"WARNING: {warning}" in " ".join(line.removeprefix("# ") for line in lines)
    assert yaml.safe_load(text).keys() == {"model", "training"}
    assert "Time:" not in text


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x1b[2J"])
def test_a_name_from_the_data_writes_no_setting(end: str, tmp_path: Path) -> None:
    label = f"hat{end}training: {{stages: 1}}"
    draft = choose(dataset(labels=(label,)), MACHINE)
    plan = StagePlan(1, 10, 4, 8, 4, None, None, 1000, 10**9)
    text = recipe_text(draft, dataset(labels=(label,)), MACHINE, [plan], {}, f"/data{end}seed: 5", "mine.yaml")
    assert yaml.safe_load(text).keys() == {"model", "training"}
    assert yaml.safe_load(text)["training"] == draft.tree["training"]
    assert text.replace("\n", "").isprintable()


@pytest.mark.slow
def test_only_comments_hold_what_was_measured(tmp_path: Path) -> None:
    url = write_videos(tmp_path / "data", people=6)
    (without, _), (measured, _) = (recommendation(url, seconds, MACHINE) for seconds in (0, 0.01))
    assert "# Time: about" in measured
    assert "measured on one worker alone" in measured
    added = set(measured.splitlines()) - set(without.splitlines())
    assert added
    assert all(line.startswith("# ") for line in added)
    assert yaml.safe_load(without) == yaml.safe_load(measured)


def test_a_training_split_that_cannot_be_divided_is_one_line(tmp_path: Path) -> None:
    url = write_videos(tmp_path / "data", people=1, windows=1)
    with pytest.raises(UserError, match="the training split has 1 group of clips") as error:
        recommendation(url, 0, MACHINE)
    assert "\n" not in str(error.value)


def test_this_machine_has_cores_and_memory() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_bytes is None or machine.memory_bytes > 10**8
    assert str(MACHINE) == "2 cores, 16 GB of memory"
