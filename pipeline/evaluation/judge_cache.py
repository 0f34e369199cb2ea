"""The judge cache: trained judges stored as files, looked up by a hash of all that they depend on.

    judge, stored = load_or_train(folder, train_clips, data_id, config, progress)
    judge = stored.load()  # in another process: a `StoredJudge` pickles as two strings

`data_id` identifies the clips that the judge learns from: for a complete training split it is the split's `data_hash`.
Exactly one phase of `progress` is started, whether the judge is trained or read.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import UserError
from cluster.storage import api as storage

if TYPE_CHECKING:
    import torch

    from vdsm.evaluation.clips import LabelledClips
    from vdsm.evaluation.judge import Judge, JudgeConfig
    from vdsm.evaluation.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredJudge:
    """A trained judge in a file."""

    url: str
    key: str
    """SHA-256 of all that the judge depends on; see `judge_key`."""

    def load(self) -> "Judge":
        """Return the judge.

        Raises:
            UserError: the file is missing, damaged, or holds another judge.
        """
        try:
            return self._parse()
        except ValueError as error:
            raise UserError(f"{self.url}: {error}; delete the file and rerun to train the judge again") from error

    def _parse(self) -> "Judge":
        from vdsm.evaluation.judge import parse_judge

        return parse_judge(storage.read_bytes(self.url), self.key)


def load_or_train(
    folder: str, clips: "LabelledClips", data_id: str, config: "JudgeConfig", progress: "Progress",
    device: "torch.device | None" = None,
) -> tuple["Judge", StoredJudge]:  # fmt: skip
    """Return the judge for these clips and settings: read from `folder`, or trained and stored there.

    Args:
        folder: the cache, a local folder or an S3 prefix.
        clips: real training clips that the judge learns from.
        data_id: identifies `clips`; different clips must have different ones.
        config: how the judge is trained.
        progress: receives one phase.
        device: where the judge is trained and stays; None means the CPU.
    """
    from vdsm.device import CPU
    from vdsm.evaluation.judge import dump_judge, judge_key, train_judge

    key = judge_key(data_id, config)
    candidates = _candidates(folder, key)
    for stored in candidates:
        if storage.exists(stored.url):
            try:
                judge = stored._parse()
            except ValueError as error:
                log.warning("%s: %s; training it again", stored.url, error)
            else:
                progress.start("reading the stored judge", 1)
                progress.advance()
                log.info("using the stored judge %s", stored.url)
                return judge.to(device or CPU), stored
    judge = train_judge(clips, config, progress, device or CPU)
    stored = candidates[0]
    storage.write_bytes(stored.url, dump_judge(judge, key))
    return judge, stored


def _candidates(folder: str, key: str) -> list[StoredJudge]:
    """Return where a judge is stored, then where a sweep of an earlier version stored it."""
    return [StoredJudge(storage.join(folder, f"judge-{name}.pt"), key) for name in (key[:16], key)]
