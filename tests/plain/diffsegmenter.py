"""DiffSegmenter written plainly from its equations: full attention matrices, one class and one timestep at a time.

Nothing here comes from `pseudolabel.diffusion`, `pseudolabel.text` or `pseudolabel.methods`, save the loaded parts of
the model: it is what the fast path is checked against, and the baseline of `python -m scripts.bench cams`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor
from PIL import Image

Part = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Sentence:
    """A prompt in three pieces; the name of the class is the middle one."""

    before: str
    name: str
    after: str = ""

    @property
    def text(self) -> str:
        return self.before + self.name + self.after


@dataclass(frozen=True)
class Matrix:
    """The softmax matrices of one attention layer, (heads, h * w, tokens or h * w).

    `values` (tokens or h * w, channels) and `output` (channels, channels) are what the layer makes its output of.
    """

    is_cross: bool
    stride: int
    probabilities: torch.Tensor
    values: torch.Tensor | None = None
    output: torch.Tensor | None = None


def write_sentence(template: str, name: str, caption: str = "") -> Sentence:
    """The filled template, then what the caption says after the same words, or else the caption after a comma."""
    before, behind = template.split("{}")
    prefix = before + name + behind
    if caption.lower().startswith(prefix.lower()) and not caption[len(prefix) :][:1].isalnum():
        return Sentence(before, name, behind + caption[len(prefix) :])
    return Sentence(before, name, behind + (f", {caption}" if caption else ""))


@torch.inference_mode()
def score_maps(
    model,
    config,
    image: Image.Image,
    sentences: list[Sentence],
    noise: torch.Tensor,
    posterior_noise: torch.Tensor | None = None,
    guidance_pair: bool = False,
    part: Part = lambda name: nullcontext(),
) -> torch.Tensor:
    """Score maps of the sentences' classes before enlarging and min-max: float32 (C, h, w).

    `noise` is (T, c, h, w), or (1, c, h, w) to be shared by the timesteps. `guidance_pair` also runs the unconditional
    half of a guidance batch and discards it, as the released code does. `part` gets the name of each part of the work.
    """
    with part("vae"):
        latent = encode_image(model, image, posterior_noise)
    maps = []
    for sentence in sentences:
        with part("text"):
            empty = encode_text(model, "")
            named = sentences if config.prompt == "joint" else [sentence]
            embeddings = encode_classes(model, named, config, empty)
            pooled = pool_text(model, sentence.text)
            if guidance_pair:
                embeddings = torch.cat([empty, embeddings])
                both = [own for own in (pool_text(model, ""), pooled) if own is not None]
                pooled = torch.cat(both) if both else None
        maps.append(one_class(model, config, latent, sentence, embeddings, pooled, noise, part))
    return torch.stack(maps)


def one_class(model, config, latent, sentence, embeddings, pooled, noise, part) -> torch.Tensor:
    """Timesteps one after the other: the mean of the products A_t c_t, or the product of the means."""
    side = latent.shape[-1]
    products = matrices = scores = torch.zeros(())
    for number, timestep in enumerate(config.timesteps):
        step_noise = noise[number if len(noise) > 1 else 0]
        with part("unet"):
            attention = attend(model, add_noise(model, latent, step_noise, timestep), timestep, embeddings, pooled)
        with part("propagation"):
            score = fuse_cross(config, attention, class_tokens(model.tokenizer, sentence, config), side)
            matrix = fuse_self(config, attention, side)
            if config.timestep_average == "mean_of_products":
                products = products + matrix @ score.flatten()
            else:
                matrices, scores = matrices + matrix, scores + score.flatten()
            del attention
    count = len(config.timesteps)
    if config.timestep_average == "product_of_means":
        return ((matrices / count) @ (scores / count)).reshape(side, side)
    return (products / count).reshape(side, side)


def encode_image(model, image: Image.Image, posterior_noise: torch.Tensor | None) -> torch.Tensor:
    """The latent z, float32 (c, h, w): the posterior's mean, or mean + deviation * noise, times the scaling factor."""
    stretched = image.resize((model.image_size, model.image_size), Image.Resampling.BILINEAR)
    pixels = torch.tensor(np.asarray(stretched).astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]
    moments = model.vae.quant_conv(model.vae.encoder(pixels.to(model.unet.device, model.vae.dtype)))[0].float()
    mean, log_variance = moments.chunk(2)
    if posterior_noise is not None:
        mean = mean + torch.exp(log_variance / 2) * posterior_noise.to(mean.device)
    return mean * model.vae.config.scaling_factor


def add_noise(model, latent: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
    left = float(model.alphas_cumprod[timestep])
    return left**0.5 * latent + (1 - left) ** 0.5 * noise.to(latent.device)


def encode_text(model, text: str) -> torch.Tensor:
    """(1, tokens, width); SDXL's two encoders are both read before their last layer."""
    ids = token_ids(model.tokenizer, text, model.text_encoder.device)
    if model.text_encoder_2 is None:
        return model.text_encoder(ids)[0]
    read = []
    for encoder, tokenizer in ((model.text_encoder, model.tokenizer), (model.text_encoder_2, model.tokenizer_2)):
        last = getattr(encoder, "text_model", encoder).encoder.layers[-1]
        hook = last.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        encoder(token_ids(tokenizer, text, encoder.device))
        hook.remove()
    return torch.cat(read, -1)


def token_ids(tokenizer, text: str, device: torch.device) -> torch.Tensor:
    ids = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    return torch.tensor([ids], device=device)


def pool_text(model, text: str) -> torch.Tensor | None:
    """SDXL's sentence as a whole, (1, width): the second encoder's last layer at the end token, projected."""
    if model.text_encoder_2 is None:
        return None
    encoder, ids = model.text_encoder_2, token_ids(model.tokenizer_2, text, model.text_encoder_2.device)
    end = ids[0].tolist().index(model.tokenizer_2.eos_token_id)
    return encoder(ids).last_hidden_state[:, end] @ encoder.text_projection.weight.T


def run_unet(model, latents: torch.Tensor, timestep: int, embeddings, pooled) -> torch.Tensor:
    """The U-Net's output; SDXL is also told that every image is a full square of the model's size."""
    if pooled is None:
        return model.unet(latents, timestep, embeddings).sample
    size = [model.image_size, model.image_size]
    sizes = torch.tensor([[*size, 0, 0, *size]] * len(latents), device=latents.device)
    return model.unet(
        latents, timestep, embeddings, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}
    ).sample


def encode_classes(model, sentences: list[Sentence], config, empty: torch.Tensor) -> torch.Tensor:
    """compel's `++`: the class tokens' encodings move away from those of the empty prompt; or iSeg's factor.

    The sentences have the same text and differ in the class that they name.
    """
    plain, empty = encode_text(model, sentences[0].text).float(), empty.float()
    weighted = plain.clone()
    for sentence in sentences:
        for token in emphasised_tokens(model.tokenizer, sentence, config):
            weighted[:, token] = empty[:, token] + config.class_weight * (plain[:, token] - empty[:, token])
            if config.emphasis == "absolute":
                weighted[:, token] = config.class_weight * plain[:, token]
    return weighted.to(model.unet.dtype)


def name_tokens(tokenizer, sentence: Sentence) -> list[int]:
    """Positions of the name's tokens; position 0 is the start of the text."""
    first = 1 + count_tokens(tokenizer, sentence.before)
    return list(range(first, first + count_tokens(tokenizer, sentence.name)))


def emphasised_tokens(tokenizer, sentence: Sentence, config) -> list[int]:
    """Positions of the name, of its last token, or of its last word, which is what `fire hydrant++` marks."""
    counts = {"mean": 0, "last": 1, "last_word": count_tokens(tokenizer, sentence.name.split(" ")[-1])}
    return name_tokens(tokenizer, sentence)[-counts[config.class_tokens] :]


def class_tokens(tokenizer, sentence: Sentence, config) -> list[list[int]]:
    """Positions of the name, and of an "ing" word after it; columns are averaged in each group and then over groups."""
    name = name_tokens(tokenizer, sentence)
    groups = [name if config.class_tokens == "mean" else name[-1:]]
    following = sentence.after.split(" ")  # what sticks to the name, and then the next word
    if len(following) > 1:
        word = following[1].strip(",.;:!?")
        if config.modifiers == "ing_next" and following[0] == "" and word.endswith("ing"):
            groups.append([name[-1] + 1 + number for number in range(count_tokens(tokenizer, word))])
        if config.modifiers == "ing_released" and following[1].endswith("ing"):
            groups.append([name[-1] + 1])
    return groups


def count_tokens(tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def attend(model, noised: torch.Tensor, timestep: int, embeddings: torch.Tensor, pooled=None) -> list[Matrix]:
    """One U-Net forward in which every attention layer keeps its full softmax matrices (Eq. 4) of the last prompt.

    `pooled` is SDXL's, of the same prompts.
    """
    kept: list[Matrix] = []
    layers = {name: layer for name, layer in model.unet.named_modules() if isinstance(layer, Attention)}
    before = model.unet.attn_processors
    model.unet.set_attn_processor(AttnProcessor())
    hooks = []
    for name, layer in layers.items():
        values: list[torch.Tensor] = []
        hooks.append(layer.to_v.register_forward_hook(lambda _, __, output, values=values: values.append(output[-1])))
        layer.get_attention_scores = _keeping(layer, name.endswith("attn2"), model.image_size, kept, values)
    try:
        batch = noised.to(model.unet.dtype).expand(len(embeddings), -1, -1, -1)
        run_unet(model, batch, timestep, embeddings, pooled)
    finally:
        for layer in layers.values():
            del layer.get_attention_scores
        for hook in hooks:
            hook.remove()
        model.unet.set_attn_processor(before)
    return kept


def _keeping(layer: Attention, is_cross: bool, image_size: int, kept: list[Matrix], values: list[torch.Tensor]):
    def scores(query, key, attention_mask=None):
        probabilities = Attention.get_attention_scores(layer, query, key, attention_mask)
        factor = image_size // round(query.shape[1] ** 0.5)
        conditional = probabilities[-layer.heads :]
        # A slice would keep the unconditional half alive as well.
        if len(conditional) < len(probabilities):
            conditional = conditional.clone()
        kept.append(Matrix(is_cross, factor, conditional, values[-1], layer.to_out[0].weight))
        return probabilities

    return scores


def fuse_cross(config, attention: list[Matrix], groups: list[list[int]], side: int) -> torch.Tensor:
    """Eq. 5: the weighted sum over resolutions of the class's columns, (side, side)."""
    total = torch.zeros(())
    crosses = [matrix for matrix in attention if matrix.is_cross]
    if config.cross_layers:
        crosses = [crosses[number] for number in config.cross_layers]
    weights = config.level_weights
    if weights == "resolution":
        positions = [(matrix.stride, matrix.probabilities.shape[1]) for matrix in crosses]
        whole = sum(1 / count for _, count in positions)
        weights = {
            stride: sum(1 / count for own, count in positions if own == stride) / whole for stride, _ in positions
        }
    for factor, weight in weights.items():
        layers = [matrix for matrix in crosses if matrix.stride == factor]
        level = torch.zeros(())
        for matrix in layers:
            over_heads = mean_of_heads(matrix, config.cross_heads)
            if config.head_weights == "output":
                over_heads = heads_by_output(matrix)
            columns = torch.stack([over_heads[:, group].mean(1) for group in groups])
            level = level + columns.mean(0) / len(layers)
        level = level.reshape(round(len(level) ** 0.5), -1)
        if config.level_norm == "before":
            level = stretch(level)
        if config.level_norm == "sum":
            level = level / level.sum()
        level = F.interpolate(level[None, None], (side, side), mode="bilinear")[0, 0]
        if config.level_norm == "after":
            level = stretch(level)
        total = total + weight * level
    return total


def stretch(level: torch.Tensor) -> torch.Tensor:
    """Min-max; a constant map becomes zeros."""
    span = level.max() - level.min()
    return (level - level.min()) / span if span > 0 else torch.zeros_like(level)


def fuse_self(config, attention: list[Matrix], side: int) -> torch.Tensor:
    """Eq. 6: one matrix (h * w, h * w), the mean over heads and over the chosen layers.

    A layer of a lower resolution acts between a bilinear reduction and a bilinear enlargement, both as matrices.
    """
    layers = [matrix for matrix in attention if not matrix.is_cross]
    if config.self_attention == "none":
        return torch.eye(side**2, device=layers[0].probabilities.device)
    if config.self_attention == "highest":
        layers = [matrix for matrix in layers if matrix.stride == min(other.stride for other in layers)]
    if config.self_attention == "strides":
        layers = [matrix for matrix in layers if matrix.stride in config.self_attention_strides]
    if config.self_attention == "layers":
        layers = [layers[number] for number in config.self_layers]
    total = torch.zeros(())
    for matrix in layers:
        over_heads = passes(config, mean_of_heads(matrix, config.self_heads))
        own = round(len(over_heads) ** 0.5)
        if own != side:
            over_heads = resizing(own, side).to(over_heads) @ over_heads @ resizing(side, own).to(over_heads)
        total = total + over_heads
    return total / len(layers)


def mean_of_heads(matrix: Matrix, heads: list[int]) -> torch.Tensor:
    probabilities = matrix.probabilities.float()
    return torch.stack([probabilities[head] for head in heads or range(len(probabilities))]).mean(0)


def heads_by_output(matrix: Matrix) -> torch.Tensor:
    """Each position's rows weighted by what the heads add to its output, vector by vector (GoCA)."""
    heads, count, tokens = matrix.probabilities.shape
    assert matrix.values is not None
    assert matrix.output is not None
    width = matrix.values.shape[1] // heads
    total = torch.zeros(count, tokens, device=matrix.values.device)
    for position in range(count):
        parts = []
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            result = matrix.probabilities[head, position].float() @ matrix.values[:, columns].float()
            parts.append(matrix.output[:, columns].float() @ result)
        output = torch.stack(parts).sum(0)
        for head, part in enumerate(parts):
            share = torch.dot(part, output) / torch.dot(output, output)
            total[position] += share * matrix.probabilities[head, position].float()
    return total


def passes(config, attention: torch.Tensor) -> torch.Tensor:
    """The k-th power, as a matrix, of the affinity made of attention (n, n)."""
    largest_of_columns = attention.max(0).values
    value = config.affinity_value or {"attention": 1, "power": 2, "peaks": 0.1, "entropy": 0.015}[config.affinity]
    if config.affinity == "power":
        attention = attention**value
    if config.affinity == "peaks":
        attention = attention / largest_of_columns
        attention = attention * (attention >= value)
    if config.affinity == "entropy":
        attention = attention / largest_of_columns
        attention = (attention + value * torch.log(2.71828 * attention) / torch.log(torch.tensor(10.0))).clamp(min=0)
    for number in range(len(attention)):
        if attention[number].sum() == 0:
            attention[number, number] = 1
    return torch.linalg.matrix_power(attention / attention.sum(1, keepdim=True), config.iterations)


def resizing(old: int, new: int) -> torch.Tensor:
    """Bilinear resizing of flattened square maps as a matrix (new ** 2, old ** 2)."""
    basis = torch.eye(old**2).reshape(old**2, 1, old, old)
    return F.interpolate(basis, (new, new), mode="bilinear").flatten(1).T
