"""Hyperparameter search: the search space, the study, the trials and their scores, the results."""
