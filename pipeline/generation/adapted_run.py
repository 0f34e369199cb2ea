"""Adapt the model of a run to one person, and write it as a run of its own.

<out>/run.json, config.yaml   as in the run that was adapted
      stage2.pt               the adapted model (stage1.pt if the run has no stage 2)
      adapted.json            what it was adapted to, how, and how well it reconstructs the clips
      adapted.gif             the clips, the clips decoded before, and after
"""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.lock import output_lock
from cluster.storage.scratch import scratch_folder
from pipeline.evaluation.inputs import chosen_device, use_all_cpus
from pipeline.generation.adaptation_request import AdaptationRequest
from pipeline.generation.media_files import encode
from pipeline.generation.user_clips import ClipList, checked, concatenate, read_clips, select_clips
from pipeline.report.animation import display_fps, median_fps
from pipeline.report.images import enlarge, mosaic
from pipeline.runs.checkpoints import copy_to_cpu, stage_file
from pipeline.runs.store import read_run
from pipeline.training.batches import to_model
from preprocessing.dataset.reader import ClipDataset
from preprocessing.spread import evenly_spread
from vdsm import adaptation, checkpoint
from vdsm.adaptation import AdaptationConfig
from vdsm.device import device_of
from vdsm.disentangler import Disentangler
from vdsm.evaluation.progress import Progress
from vdsm.pixels import to_pixels

DESCRIPTION, RECIPE, RUN = "adapted.json", "config.yaml", "run.json"
_REPLACED = ("optimiser", "ema", checkpoint.USED, checkpoint.WEIGHTS)
"""What an adapted checkpoint does not have, or not from the run's."""
SHOWN_CLIPS, SHOWN_FRAMES = 4, 64


@dataclass(frozen=True)
class AdaptationWork:
    """A checked request, ready to execute."""

    request: AdaptationRequest
    model: Disentangler
    origin: dict[str, Any]
    content: dict[str, Any]
    """What of the run's checkpoint goes into that of the adapted run, beside the weights."""
    files: dict[str, bytes]
    """Files of the run that are copied, by name."""
    clips: ClipList
    phases = 2

    @property
    def config(self) -> AdaptationConfig:
        """How the model is adapted."""
        request = self.request
        return AdaptationConfig(
            static_steps=request.static_steps,
            decoder_steps=request.decoder_steps,
            anchor=request.anchor,
            seed=request.seed,
        )

    def frames(self) -> NDArray[np.uint8]:
        """Return the frames to fit, of all clips one after the other: uint8 [T, H, W, C]."""
        every = np.concatenate([self.clips.frames(index) for index in range(len(self.clips))])
        if len(every) <= self.request.max_frames:
            return every
        return np.take(every, evenly_spread(len(every), self.request.max_frames), axis=0)

    def summary(self) -> str:
        """Return a line on what is adapted to what."""
        count = sum(self.clips.clip_frames)
        used = min(count, self.request.max_frames)
        return f"adapting {self.origin['run']} to {len(self.clips)} clips, {used} of {count} frames\n"

    def execute(self, progress: Progress) -> str:
        """Adapt the model, write the run, and return lines on the result.

        Raises:
            UserError: another process writes the same run.
        """
        storage.check_writable(self.request.out)
        with output_lock(self.request.out):
            return self._execute(progress)

    def _execute(self, progress: Progress) -> str:
        use_all_cpus()
        began = time.monotonic()
        fitted = adaptation.fit(self.model, self._as_clip(self.frames())[0], self.config, progress)
        before = self._decoded()
        adaptation.apply(self.model, fitted)
        after = self._decoded()
        quality = {"before": self._psnr(before), "after": self._psnr(after)}
        self._write(quality, time.monotonic() - began)
        storage.write_bytes(storage.join(self.request.out, "adapted.gif"), self._animation(before, after))
        return (
            f"PSNR of the clips decoded from their own codes: {quality['before']:.1f} dB before, "
            f"{quality['after']:.1f} dB after\n"
            f"{storage.join(self.request.out, 'adapted.gif')}: the clips, decoded before, decoded after\n"
            f"{self.request.out}: give it to vdsm generate --run\n"
        )

    def _decoded(self) -> list[NDArray[np.uint8]]:
        """Return each clip decoded from its own poses and the static code."""
        decoded = []
        for index in range(len(self.clips)):
            parts = [
                self.model.reconstruct(self._as_clip(part))[0]
                for part in np.array_split(self.clips.frames(index), -(-self.clips.clip_frames[index] // 256))
            ]
            decoded.append(to_pixels(torch.cat(parts)[None])[0])
        return decoded

    def _as_clip(self, frames: NDArray[np.uint8]) -> Tensor:
        """Convert frames uint8 [T, H, W, C] to one clip, float32 [1, T, C, H, W] in [0, 1], on the model's device."""
        return to_model(torch.from_numpy(np.ascontiguousarray(frames))[None], device_of(self.model))

    def _psnr(self, decoded: list[NDArray[np.uint8]]) -> float:
        """Return the PSNR of decoded clips in dB, over all their pixels."""
        errors = [
            np.square(clip.astype(np.float64) - self.clips.frames(index)).mean((1, 2, 3))
            for index, clip in enumerate(decoded)
        ]
        return float(10 * np.log10(255**2 / max(np.concatenate(errors).mean(), 1e-12)))

    def _animation(self, before: list[NDArray[np.uint8]], after: list[NDArray[np.uint8]]) -> bytes:
        shown = range(min(len(self.clips), SHOWN_CLIPS))
        length = min(SHOWN_FRAMES, min(self.clips.clip_frames[index] for index in shown))
        rows = [[self.clips.frames(index)[:length] for index in shown]]
        rows += [[clips[index][:length] for index in shown] for clips in (before, after)]
        rates = [float(rate) for rate in self.clips.fps]
        return encode(enlarge(mosaic(rows), 2), "gif", display_fps(rates[0] if rates else None))

    def _write(self, quality: dict[str, float], seconds: float) -> None:
        """Write the run; run.json last, which makes it one, and which that of an earlier adaptation must not do."""
        out, origin, fitted = self.request.out, self.origin, self.model.fitted_priors
        assert fitted is not None, "an adapted model has the density of its static code"
        storage.delete(storage.join(out, RUN))
        storage.delete(stage_file(out, 3 - origin["stage"]))  # of an adaptation of a run with more or fewer stages
        storage.write_bytes(storage.join(out, RECIPE), self.files[RECIPE])
        with scratch_folder() as scratch:
            path = scratch / "adapted.pt"
            made = {checkpoint.PRIORS: fitted.to_dict(), checkpoint.WEIGHTS: copy_to_cpu(self.model.state_dict())}
            checkpoint.save(self.content | made, path)
            storage.upload(path, stage_file(out, origin["stage"]))
        description = {
            "run": origin["run"],
            "checkpoint_sha256": origin["checkpoint_sha256"],
            "clips": list(self.clips.keys),
            "frames": len(self.frames()),
            "settings": asdict(self.config),
            "psnr_db": quality,
            "seconds": round(seconds, 1),
        }
        storage.write_bytes(storage.join(out, DESCRIPTION), json.dumps(description, indent=1).encode())
        storage.write_bytes(storage.join(out, RUN), self.files[RUN])


def prepare(request: AdaptationRequest) -> AdaptationWork:
    """Load the model and the clips, and check everything that can be checked before the work.

    Raises:
        UserError: the run or a clip is missing, damaged or does not fit, or `out` holds a run that was trained.
    """
    out = request.out
    if storage.exists(storage.join(out, RUN)) and not storage.exists(storage.join(out, DESCRIPTION)):
        raise UserError(f"{out}: holds a run that `vdsm train` wrote, which would be replaced; give another --out")
    if request.identity is not None and request.data is None:
        raise UserError(f"--identity {request.identity} names clips of a dataset; give --data, too")
    if not request.videos and request.data is None:
        raise UserError("no clips to adapt to; give --videos or --data")
    device = chosen_device(request.device)
    # All at once: a run that is still trained deletes old checkpoints.
    (model, _, origin), read = read_run(request.run)
    if storage.exists(storage.join(request.run, DESCRIPTION)):
        raise UserError(f"{request.run}: is adapted to a person already; give the run that it was adapted from")
    content = {key: value for key, value in read.items() if key not in _REPLACED}
    files = {name: storage.read_bytes(storage.join(origin["run"], name)) for name in (RECIPE, RUN)}
    clips = _find_clips(request, model)
    return AdaptationWork(request, model.to(device), origin, content, files, clips)


def _find_clips(request: AdaptationRequest, model: Disentangler) -> ClipList:
    """Return all clips that the request names."""
    splits, fps = [], request.clip_fps
    if request.data is not None:
        splits = [ClipDataset(str(request.data), split) for split in ("test", "train")]
        fps = fps or median_fps(splits[0])
    size, channels = model.config.frame_size, model.config.channels
    found = [
        read_clips(
            name, size=size, channels=channels, min_frames=1, fps=fps, splits=splits, still_frames=1, complete=True
        )
        for name in request.videos
    ]
    if request.identity is not None or not request.videos:
        chosen = [
            (clips, index)
            for clips in splits
            for index, identity in enumerate(clips.identities)
            if request.identity in (None, identity)
        ]
        if not chosen:
            known = sorted({identity for clips in splits for identity in clips.identities})
            if not known:
                raise UserError(f"{request.data}: has no clips; shard a source that has some")
            raise UserError(
                f"{request.data}: has no clip of the identity {request.identity}; it has {len(known)}, "
                f"such as {known[0]}"
            )
        for clips, index in chosen:
            found.append(checked(clips.keys[index], select_clips(clips, [index]), size, channels, 1))
    return concatenate(found)
