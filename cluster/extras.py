"""Which extra of the package to install for a library that is missing.

An installation without extras loads, runs and evaluates models. Libraries of an extra are imported where they are
needed; `cluster.cli.run` answers a missing one with the line that is made here.
"""

import importlib.util

from cluster.errors import UserError

EXTRA_OF = {
    "ray": "train",
    "pyarrow": "data",
    "tensorboard": "train",
    "faiss": "train",
    "sklearn": "train",
    "threadpoolctl": "train",
    "boto3": "s3",
    "botocore": "s3",
    "obstore": "cloud",
    "optuna": "tune",
    "plotly": "tune",
    "cv2": "prepare",
    "scenedetect": "prepare",
    "imagehash": "prepare",
    "fastapi": "studio",
    "starlette": "studio",
    "multipart": "studio",
    "huggingface_hub": "hub",
    "wandb": "trackers",
    "mlflow": "trackers",
    "trackio": "trackio",
    "h5py": "h5",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "psycopg": "postgres",
    "cryptography": "s3-server",
}
"""Module -> extra that installs it."""


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'vdsm-pipeline[{extra}]'"


def require(module: str) -> None:
    """Check that a library of an extra is installed, where work would begin before it is imported.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(str(remedy(module)))


def remedy(missing: str | None) -> str | None:
    """Return a line on a module that is not installed, and the extra that brings it; None if it is of no extra."""
    module = (missing or "").partition(".")[0]
    if module not in EXTRA_OF:
        return None
    return f"this needs {module}, which is not installed; {install(EXTRA_OF[module])}"
