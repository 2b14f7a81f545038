"""TagCLIP patch by patch, with loops, on transformers' own forward pass with eager attention."""

import numpy as np
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor


def plain_scores(folder: str, image: Image.Image, sentences: list[str], classes: int) -> list[float]:
    model = CLIPModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    patch, scale = model.config.vision_config.patch_size, model.logit_scale.exp().item()
    texts = []
    for sentence in sentences:
        feature = model.get_text_features(processor.tokenizer(sentence, return_tensors="pt").input_ids)
        texts.append(unit(feature.pooler_output[0].detach().numpy()))
    columns, rows = (round(side / patch) for side in image.size)
    resized = image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    pixels = processor.image_processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values
    with torch.inference_mode():
        out = model.vision_model(
            pixels, interpolate_pos_encoding=True, output_attentions=True, output_hidden_states=True
        )
        states = model.visual_projection(model.vision_model.post_layernorm(out.hidden_states[-2][0, 1:])).numpy()
    layers = [attention[0].mean(0)[1:, 1:].numpy() for attention in out.attentions[:-1]]
    probabilities = np.array([softmax([scale * unit(state) @ text for text in texts]) for state in states])
    maps = refined(probabilities[:, :classes], layers, rows, columns)
    scores = [max(column) for column in maps.T]
    middle = (min(scores) + max(scores)) / 2
    result = list(scores)
    for index, score in enumerate(scores):
        if score > middle or min(scores) == max(scores):
            ys, xs = np.divmod(np.flatnonzero(high(maps[:, index])), columns)
            across, down = image.width / columns, image.height / rows
            left, top = int(xs.min() * across), int(ys.min() * down)
            right, bottom = int(np.ceil((xs.max() + 1) * across)), int(np.ceil((ys.max() + 1) * down))
            crop = processor.image_processor(image.crop((left, top, right, bottom)), return_tensors="pt")
            feature = unit(model.get_image_features(crop.pixel_values).pooler_output[0].detach().numpy())
            result[index] = (score + softmax([scale * feature @ text for text in texts])[index]) / 2
    return [float(score) for score in result]


def refined(maps: np.ndarray, layers: list[np.ndarray], rows: int, columns: int) -> np.ndarray:
    depth, patches = len(layers) + 1, len(maps)
    late = layers[min(round(depth * 8 / 12), depth - 2) :]
    weights = np.zeros((patches, patches))
    for i in range(patches):
        for j in range(patches):
            if sum(layer[i, j] > layer.mean() for layer in layers) >= max(1, round(depth * 4 / 12)):
                weights[i, j] = np.mean([layer[i, j] for layer in late])
        weights[i] = weights[i] / weights[i].sum() if weights[i].any() else np.eye(patches)[i]
    result = np.zeros_like(maps)
    for index in range(maps.shape[1]):
        mask = boxes(high(maps[:, index]).reshape(rows, columns)).ravel()
        for i in np.flatnonzero(mask):
            result[i, index] = sum(weights[i, j] * maps[j, index] for j in np.flatnonzero(mask))
    return result


def boxes(mask: np.ndarray) -> np.ndarray:
    """Flood fill of neighbours by side, then the box of each part."""
    filled, left = mask.copy(), {(int(y), int(x)) for y, x in np.argwhere(mask)}
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            edge += near
        ys, xs = zip(*part, strict=True)
        filled[min(ys) : max(ys) + 1, min(xs) : max(xs) + 1] = True
    return filled


def high(scores: np.ndarray) -> np.ndarray:
    return scores >= scores.min() + 0.4 * (scores.max() - scores.min())


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def softmax(logits: list[float]) -> np.ndarray:
    powers = np.exp(np.array(logits) - max(logits))
    return powers / powers.sum()
