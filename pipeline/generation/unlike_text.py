"""What users read of a clip that is unlike a model's training data; see `vdsm.familiarity`. Free of torch."""

TEMPLATE = (
    "{name} is unlike the training data, so the result may show nothing of it: its static code is less likely than "
    "{rarer}% of the training distribution, and decoded from its own codes it has a PSNR of {psnr_db} dB"
)
"""The text; numbers have one decimal place."""


def describe_unlike(name: str, share: float, psnr_db: float) -> str:
    """Return the text.

    Args:
        name: name of the clip.
        share: share of the training distribution whose static codes are less likely than the clip's.
        psnr_db: PSNR of the clip decoded from its own codes.
    """
    return TEMPLATE.format(name=name, rarer=f"{100 * (1 - share):.1f}", psnr_db=f"{psnr_db:.1f}")
