"""From a request to files: check it, generate the grids, and write them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cluster.storage import api as storage
from cluster.storage.lock import output_lock
from pipeline.evaluation.inputs import use_all_cpus
from pipeline.generation.checks import check_donors, check_memory
from pipeline.generation.donors import Donors, find_donors
from pipeline.generation.generated_grids import GeneratedGrid, GridGenerator, sample_grid
from pipeline.generation.media_files import encode, encode_npz
from pipeline.generation.outputs import Outputs, format_of_out, plan_outputs
from pipeline.generation.request import GenerationRequest, Kind
from pipeline.generation.trained_model import TrainedModel, load_model
from pipeline.generation.unlike_clips import warn_of_unlike_clips
from pipeline.report.animation import display_fps
from pipeline.report.images import enlarge
from pipeline.report.rollouts import rollout_length
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import Progress

SAMPLE_ROWS = 4
INTERPOLATION_ROWS = 6


@dataclass(frozen=True)
class Generation:
    """A checked request, ready to execute."""

    request: GenerationRequest
    trained: TrainedModel
    donors: Donors | None
    outputs: Outputs

    @property
    def phases(self) -> int:
        """Number of phases of progress that `execute` starts."""
        return (1 if self._needs_donors else 0) + len(self.outputs.urls)

    @property
    def _needs_donors(self) -> bool:
        return any(kind != "samples" for kind in self.outputs.urls)

    def execute(self, progress: Progress) -> Iterator[str]:
        """Generate and write each output; yield its URL once it is written.

        Raises:
            UserError: another process writes into the same folder.
        """
        use_all_cpus()
        # One file is complete at any time, and others of its folder are none of its concern.
        with contextlib.nullcontext() if self.outputs.single else output_lock(self.outputs.folder):
            if self.donors is not None:
                warn_of_unlike_clips(self.trained, self.donors, self.request)
            generator = self._generator(progress) if self._needs_donors else None
            for kind, url in self.outputs.urls.items():
                grid = self._generate(kind, generator, progress)
                storage.write_bytes(url, self._encode(grid))
                yield url

    def _generator(self, progress: Progress) -> GridGenerator:
        """Encode the donors."""
        donors, request, trained = self.donors, self.request, self.trained
        assert donors is not None
        codes = encode_clips(trained.model, donors.clips, trained.clip_frames, progress=progress)
        return GridGenerator(
            SwapDecoder(trained.model, codes, self._length), donors.clips, np.array(donors.action_clips),
            np.array(donors.identity_clips), trained.sequence_stage, request.seed, progress,
        )  # fmt: skip

    def _generate(self, kind: Kind, generator: GridGenerator | None, progress: Progress) -> GeneratedGrid:
        request = self.request
        if kind == "samples":
            rows = request.rows or SAMPLE_ROWS
            return sample_grid(self.trained.model, rows, request.columns, self._length, request.seed, progress)
        assert generator is not None
        if kind == "transfer":
            return generator.transfer()
        if kind == "prior":
            return generator.prior(request.columns)
        if kind == "interpolation":
            return generator.interpolation(request.rows or INTERPOLATION_ROWS, request.columns)
        if kind == "rollout":
            return generator.rollout(request.length or rollout_length(self.trained.clip_frames))
        return generator.reconstruction()

    def _encode(self, grid: GeneratedGrid) -> bytes:
        if self.outputs.format == "npz":
            return encode_npz(grid.arrays())
        bare = self.request.bare
        frames = enlarge(grid.bare() if bare else grid.frames(), self.request.scale)
        return encode(frames, self.outputs.format, self._fps, repeat=not bare)

    @property
    def _length(self) -> int:
        """Frames of each generated clip other than rollouts."""
        return self.request.length or self.trained.clip_frames

    @property
    def _fps(self) -> float:
        """Frames per second of the output: as requested, or those of the first donor."""
        rates = [float(rate) for rate in self.donors.clips.fps] if self.donors else []
        return self.request.fps or display_fps(rates[0] if rates else None)


def prepare(request: GenerationRequest) -> Generation:
    """Load the model and the donors, and check everything that can be checked before the work.

    Raises:
        UserError: the run, the data or a clip is missing or damaged, they do not belong together, or the requested
            outputs cannot be generated from them.
    """
    single = format_of_out(request)
    trained = load_model(request)
    outputs = plan_outputs(request, trained, single)
    donors = find_donors(request, trained)
    check_donors(request, trained, donors, list(outputs.urls))
    check_memory(request, trained, donors, list(outputs.urls))
    storage.check_writable(outputs.folder)
    return Generation(request, trained, donors, outputs)
