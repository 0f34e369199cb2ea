"""References to what a clip is made from: a stored clip, the codes of one, or a sample of the prior.

    figures:KEY, test:KEY, train:KEY   a clip of the built-in figures, or of a split of the dataset
    code:BASE64                        both codes of a clip, as float32, of which an answer consists too
    sample:SEED                        both codes sampled from the prior

They are all that a link to a result holds; nothing is stored on the server.
"""

import base64
import binascii
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from pipeline.web_studio.settings import ModelFacts

CODE, SAMPLE = "code", "sample"
MAX_SEED = 2**31
LONGEST = 20_000
"""Characters of the longest reference."""


@dataclass(frozen=True)
class Code:
    """Both codes of one clip."""

    static: NDArray[np.float32]
    """[K]"""
    dynamics: NDArray[np.float32]
    """[D]"""

    def to_text(self) -> str:
        """Return the reference `code:BASE64`."""
        data = np.concatenate([self.static, self.dynamics]).astype("<f4").tobytes()
        return f"{CODE}:{base64.urlsafe_b64encode(data).decode().rstrip('=')}"


def split(reference: str) -> tuple[str, str]:
    """Return kind and value of a reference.

    Raises:
        UserError: it is none.
    """
    kind, separator, value = reference.partition(":")
    if not separator or not value or len(reference) > LONGEST:
        raise UserError(f"{reference:.80}: is no reference to a clip; give figures:KEY, test:KEY, code:... or sample:N")
    return kind, value


def read_code(value: str, facts: ModelFacts) -> Code:
    """Return the codes in a reference `code:VALUE`.

    Raises:
        UserError: it is damaged, or of another model.
    """
    size = facts.static_size + facts.dynamics_size
    try:
        data = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        numbers = np.frombuffer(data, dtype="<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise UserError("the codes in this link are damaged; copy the complete link") from None
    if len(numbers) != size or not np.isfinite(numbers).all() or np.abs(numbers).max() > 1e4:
        raise UserError(f"the codes in this link are not of the model {facts.name}; open it where it was made")
    return Code(numbers[: facts.static_size], numbers[facts.static_size :])


def read_seed(value: str) -> int:
    """Return the seed in a reference `sample:VALUE`.

    Raises:
        UserError: it is no number in [0, MAX_SEED).
    """
    if not value.isascii() or not value.isdecimal() or len(value) > 10 or int(value) >= MAX_SEED:
        raise UserError(f"sample:{value:.40}: the seed must be a whole number below {MAX_SEED}")
    return int(value)
