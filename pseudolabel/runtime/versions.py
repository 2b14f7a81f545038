"""Versions of the packages that results come from."""

from importlib import metadata

PACKAGES = ("pseudolabel", "torch", "diffusers", "transformers", "numpy", "scipy", "pydensecrf2")


def versions() -> dict[str, str]:
    """The version of each package that is installed, by name."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # such as a copy of this package on the path
            continue
    return found
