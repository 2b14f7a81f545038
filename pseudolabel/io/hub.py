"""How checkpoints are fetched from the Hugging Face hub."""

from dataclasses import dataclass, field
from typing import Any


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


DEFAULT_HUB = Hub()
