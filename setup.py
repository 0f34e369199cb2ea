"""What pyproject.toml cannot say: the recipes of configs/ travel inside the package `cluster`."""

from setuptools import find_packages, setup

RECIPES = {"cluster.configs": "configs", "cluster.configs.sweeps": "configs/sweeps"}
"""Package in an installation -> folder in the repository."""

setup(
    packages=[*find_packages(include=["pipeline*", "preprocessing*", "cluster*", "vdsm*"]), *RECIPES],
    package_dir=RECIPES,
)
