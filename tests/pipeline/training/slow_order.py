"""The global order, restated one sample at a time: an oracle for the properties of `pipeline.training.order`.

Runs resume by step number, so the order must not change between versions: this file is its definition in plain Python.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.training.partners import ClipTable

_WORD = 1 << 64


class Settings(NamedTuple):
    """The arguments of `GlobalOrder`, except for the table."""

    seed: int
    stage: int
    window: int
    batch: int
    validation_fraction: float
    pairing: bool
    block_shards: int
    late_from: int = 0


class Sample(NamedTuple):
    """One sample of a batch."""

    clip: int
    start: int
    partner: int | None
    partner_start: int | None


def _seed(*parts: int | str) -> int:
    return int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16], 16) // 2


def _draw(settings: Settings, epoch: int, purpose: str, value: int) -> int:
    """Return output number 1 of the generator SplitMix64 whose state is `value`, offset by the seed of the purpose."""
    x = (value + 2 * _seed(settings.seed, settings.stage, epoch, purpose) + 0x9E3779B97F4A7C15) % _WORD
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % _WORD
    return x ^ (x >> 31)


def _key_hash(table: ClipTable, clip: int) -> int:
    return int(hashlib.sha256(table.keys[clip].encode()).hexdigest()[:16], 16)


def held_out(table: ClipTable, settings: Settings) -> set[str]:
    """Return the groups of the validation split."""
    ranked = sorted(set(table.validation_groups), key=lambda one: (_seed(settings.seed, "validation", one), one))
    wanted = round(settings.validation_fraction * len(ranked))
    return set(ranked[: min(max(1, wanted), len(ranked) - 1)])


def epoch(table: ClipTable, settings: Settings, number: int) -> list[Sample]:
    """Return the samples of one epoch, in order."""
    held = held_out(table, settings)
    clips = [clip for clip, group in enumerate(table.validation_groups) if group not in held]
    members: dict[int, list[int]] = {}
    for clip in clips:
        members.setdefault(0 if table.shards is None else int(table.shards[clip]), []).append(clip)
    drawn = {
        shard: _draw(settings, number, "shards", min(_key_hash(table, clip) for clip in own))
        for shard, own in members.items()
    }
    shards = sorted(members, key=drawn.__getitem__)
    samples = []
    for first in range(0, len(shards), settings.block_shards):
        block = [clip for shard in shards[first : first + settings.block_shards] for clip in members[shard]]
        block.sort(key=lambda clip: _draw(settings, number, "order", _key_hash(table, clip)))
        samples += [_sample(table, settings, number, clip, clips) for clip in block]
    return samples


def _sample(table: ClipTable, settings: Settings, number: int, clip: int, clips: list[int]) -> Sample:
    def start(purpose: str, of: int) -> int:
        choices = int(table.frames[of]) - settings.window + 1
        return _draw(settings, number, purpose, _key_hash(table, clip)) % choices

    if not settings.pairing:
        return Sample(clip, start("window", clip), None, None)
    drawn = _draw(settings, number, "partner", _key_hash(table, clip))
    partner = _listed(table, clip, clips, drawn) if table.pairs else _of_group(table, clip, clips, drawn)
    return Sample(clip, start("window", clip), partner, start("partner window", partner))


def _of_group(table: ClipTable, clip: int, clips: list[int], drawn: int) -> int:
    """Return another clip of the same group, counted on from the clip; a clip alone is its own partner."""
    others = [one for one in clips if table.groups[one] == table.groups[clip]]
    if len(others) == 1:
        return clip
    return others[(others.index(clip) + 1 + drawn % (len(others) - 1)) % len(others)]


def _listed(table: ClipTable, clip: int, clips: list[int], drawn: int) -> int:
    """Return a clip that is listed and not held out; a clip without one is its own partner."""
    assert table.pairs is not None
    listed = [int(two) for one, two in zip(table.pairs.firsts, table.pairs.partners, strict=True) if one == clip]
    trained = [one for one in listed if one in clips]
    return trained[drawn % len(trained)] if trained else clip


def samples(table: ClipTable, settings: Settings) -> Iterator[Sample]:
    """Yield the samples of a stage, epoch after epoch, without end."""
    number = 0
    early = early_samples(table, settings)
    while early > 0:
        visited = [
            sample for sample in epoch(table, settings, number) if table.late is None or not table.late[sample.clip]
        ]
        yield from visited[:early]
        early -= len(visited)
        number += 1
    while True:
        yield from epoch(table, settings, number)
        number += 1


def early_samples(table: ClipTable, settings: Settings) -> int:
    """Return the number of samples before the late clips join; 0 if none or all of the clips to train on are late."""
    clips = {sample.clip for sample in epoch(table, settings, 0)}
    late = {clip for clip in clips if table.late is not None and table.late[clip]}
    return settings.late_from * settings.batch if late and late != clips else 0
