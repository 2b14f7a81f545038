"""Train a small network in plain PyTorch on an export of single-channel masks.

pseudolabel export runs/shapes --to png --out exports/shapes --split 0.9
python docs/examples/train_pytorch.py exports/shapes
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset


class Masks(Dataset):
    """Image, float32 (3, H, W) in [0, 1], and mask, int64 (H, W), of each sample; images have one size."""

    def __init__(self, folder: Path, split: str) -> None:
        self.images, self.masks = folder / "images" / split, folder / "masks" / split
        self.names = sorted(path.relative_to(self.images) for path in self.images.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.images / self.names[index]) as image:
            pixels = np.array(image.convert("RGB"))
        with Image.open(self.masks / self.names[index].with_suffix(".png")) as mask:
            labels = np.array(mask)  # class indices as they are; 255 is ignored
        return torch.from_numpy(pixels).permute(2, 0, 1) / 255, torch.from_numpy(labels).long()


def train(folder: Path, steps: int = 100) -> list[float]:
    """Give the loss of every step."""
    classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))["classes"]
    count = sum(entry["id"] != 255 for entry in classes)
    loader = DataLoader(Masks(folder, "train"), batch_size=4, shuffle=True, drop_last=True)
    network = nn.Sequential(
        *(nn.Conv2d(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, count, 3, 1, 1), nn.Upsample(scale_factor=4, mode="bilinear")),
    )
    optimizer, losses = torch.optim.AdamW(network.parameters(), 3e-3), []
    while len(losses) < steps:
        for images, masks in loader:
            loss = cross_entropy(network(images), masks, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    losses = train(Path(sys.argv[1]))
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
