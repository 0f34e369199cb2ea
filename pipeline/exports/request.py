"""The request of `vdsm export`: which run, and what goes with its model. Field docstrings are the help of options."""

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section


class ExportRequest(Section):
    """A run, and the folder for its model."""

    run: Location
    """Folder of the run, <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    out: Location
    """Folder for the exported model; may be in S3."""
    metrics: Location | None = None
    """metrics.json of `vdsm evaluate`, or the folder that holds it; the model card shows its metrics with chance,
    ceiling and intervals."""
    data: Location | None = None
    """Dataset that the run was trained on: the sample animation then shows transfers between its test clips, and the
    frame rate of the clips is stored. Without it, samples of the prior are shown."""
    name: str = Field(default="", max_length=100)
    """Name of the model in its card; by default that of the run."""
    license: str = Field(default="", max_length=60, pattern=r"^[A-Za-z0-9.+-]*$")
    """Licence of the weights, as an identifier such as mit or cc-by-nc-4.0. Weights carry no licence unless you give
    them one; that of the data may restrict it."""
    half: bool = False
    """Store the weights in half precision: half the size; computed in single precision as before."""
    programs: bool = False
    """Also write encode.pt2 and decode.pt2, programs of torch.export, which run without this package."""
    onnx: bool = False
    """Also write encode.onnx and decode.onnx, which agree with the model to 1e-4 in ONNX Runtime. Needs the extra
    onnx."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of clips and samples of the animation."""
