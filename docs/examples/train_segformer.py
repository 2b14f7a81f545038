"""Train Hugging Face's SegFormer on an export for the hub; a tiny one from random weights, so that it runs anywhere.

pseudolabel export runs/shapes --to hf --out exports/shapes_hf
python docs/examples/train_segformer.py exports/shapes_hf
"""

import sys

import numpy as np
import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import SegformerConfig, SegformerForSemanticSegmentation

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of ImageNet


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    """What the model takes of rows whose images have one size."""
    images = torch.stack([torch.from_numpy(np.array(row["image"].convert("RGB"))) for row in rows])
    masks = torch.stack([torch.from_numpy(np.array(row["mask"])) for row in rows])
    # The masks' 0 is background, a class of its own: with an image processor set do_reduce_labels=False.
    return {"pixel_values": ((images / 255 - MEAN) / STD).permute(0, 3, 1, 2), "labels": masks.long()}


def train(name: str, steps: int = 100) -> list[float]:
    """Give the loss of every step; `name` is a folder, or a repository of the hub."""
    data = load_dataset(name, split="train")
    names = data.features["classes"].feature.names
    torch.manual_seed(0)
    # For photographs: SegformerForSemanticSegmentation.from_pretrained("nvidia/mit-b0", id2label=...,
    # semantic_loss_ignore_index=255).
    config = SegformerConfig(
        id2label=dict(enumerate(names)),
        semantic_loss_ignore_index=255,
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=64,
    )
    model = SegformerForSemanticSegmentation(config)
    model.train()
    loader = DataLoader(data, batch_size=4, shuffle=True, drop_last=True, collate_fn=collate)
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-3), []
    while len(losses) < steps:
        for batch in loader:
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    losses = train(sys.argv[1])
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
