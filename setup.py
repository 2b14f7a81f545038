"""Which folders install under which import name; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

# Folders that install under another name, so that neither `configs` nor `train` lands at top level.
RENAMED = {
    "pseudolabel.pipelines": "configs/pipeline",
    "pseudolabel_train": "train",
    "pseudolabel_train.configs": "configs/deeplabv2",
}

setup(
    packages=[*find_packages(include=["pseudolabel", "pseudolabel.*"]), *RENAMED],
    package_dir={"pseudolabel": "pseudolabel", **RENAMED},
)
