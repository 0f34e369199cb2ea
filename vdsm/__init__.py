"""VDSM: unsupervised video disentanglement with state-space modelling and mixtures of experts.

The model of Vowels, Camgoz and Bowden (CVPR 2021, arXiv 2103.07292) and its evaluation. This package needs torch and
pyro and nothing else: no Ray, no object storage, no files but checkpoints.
"""
