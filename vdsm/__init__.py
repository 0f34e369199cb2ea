"""VDSM: unsupervised video disentanglement with state-space modelling and mixtures of experts.

The model of Vowels, Camgoz and Bowden (CVPR 2021, arXiv 2103.07292) and its evaluation. This package depends on torch
and pyro only. It does not use Ray or object storage, and reads and writes no files but checkpoints and weights.
"""

__version__ = "0.1.0"
