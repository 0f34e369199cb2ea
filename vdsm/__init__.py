"""VDSM: unsupervised video disentanglement with state-space modelling and mixtures of experts.

The model of Vowels, Camgoz and Bowden (CVPR 2021, arXiv 2103.07292) and its evaluation. This package depends on torch
and pyro, and on safetensors for exported models. It does not use Ray or object storage, and reads and writes no files
but checkpoints, weights and exported models.

    import vdsm
    model = vdsm.load("runs/first")  # or an exported folder, s3://bucket/prefix, hf://ORG/NAME, a shipped name
    clip = model.swap(static_of="who.mp4", dynamics_of="how.mp4")  # uint8 [T, H, W, C]
"""

from vdsm.loading import load

__all__ = ["load"]
__version__ = "0.1.0"
