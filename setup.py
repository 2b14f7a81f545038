"""Which folders install under which import name; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

# Folders that live beside the package but install inside its namespace, so that no `configs` lands at top level.
RENAMED = {"pseudolabel.pipelines": "configs/pipeline"}

setup(
    packages=[*find_packages(include=["pseudolabel", "pseudolabel.*"]), *RENAMED],
    package_dir={"pseudolabel": "pseudolabel", **RENAMED},
)
