"""`vdsm.load`: a trained model, wherever it is."""

from pathlib import Path
from typing import TYPE_CHECKING

from vdsm.companions import reader

if TYPE_CHECKING:
    from vdsm.model import Model

SHIPPED = Path(__file__).parent / "models"
"""Folder of the exported models that come with this package, by name."""


def load(source: str | Path, *, device: str = "cpu") -> "Model":
    """Return a trained model, ready to use.

    Args:
        source: the folder of a run (`vdsm train`) or of an exported model (`vdsm export`), local or
            s3://bucket/prefix; `hf://ORG/NAME` or `hf://ORG/NAME@REVISION` for a model on the Hugging Face Hub; or the
            name of a model that comes with the package, see `shipped`.
        device: where it computes, such as `cpu`, `cuda:1` or `mps`.

    Raises:
        ValueError: there is no model, it is damaged, or the device does not exist; the message is one line that names
            the source and the remedy.
    """
    # torch takes seconds to import.
    import torch

    from vdsm.model import Model
    from vdsm.model_folder import is_model_folder, read_model_folder

    name = str(source)
    folder = Path(name).expanduser()
    if "://" not in name and is_model_folder(folder):
        network, facts = read_model_folder(folder)
    elif "://" not in name and not folder.exists() and name in shipped():
        network, facts = read_model_folder(SHIPPED / name)
    elif "://" in name or folder.is_dir():
        network, facts = reader(name).open_model(name)
    else:
        known = ", ".join(shipped()) or "none"
        raise ValueError(f"{name}: there is no such folder, and no shipped model of this name (shipped: {known})")
    try:
        return Model(network.to(torch.device(device)), facts)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device is {device}: {reason:.200}; give cpu, or a device of this machine") from None


def shipped() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/config.json")))
