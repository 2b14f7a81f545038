"""Train one of the small text-to-image latent diffusion models that ship with the package.

The three parts are real diffusers and transformers classes, trained on Shapes alone: first the VAE, then the
text encoder and the U-Net together on the VAE's latents. The result is a Stable Diffusion pipeline folder in
float16 safetensors that loads through exactly the code that loads Stable Diffusion.

    python scripts/train_shapes_diffusion.py --out runs/shapes-diffusion          # 80 minutes on 2 cores
    python scripts/train_shapes_diffusion.py --model shapes --out runs/easy       # the model of easy scenes
    python scripts/train_shapes_diffusion.py --out /tmp/try --unet-steps 200      # a quick look
"""

import argparse
import json
import string
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from descent import LOG_EVERY, build_optimiser, descend, smooth
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from rich.progress import Progress
from shapes_vae import build_vae, encode, train_vae
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import claim_folder
from pseudolabel.runtime.precision import computes_bfloat16
from pseudolabel.shapes.difficulty import DIFFICULTIES, Difficulty
from pseudolabel.shapes.world import BACKGROUNDS, SIZE, Scene, caption, draw_scene
from pseudolabel.vocabulary import load_vocabulary

TEXT_WIDTH = 64
VAE_BATCH = 16
TEXT_LENGTH = 77
CAPTIONS = 8  # of a scene, drawn once
EMPTY_CAPTION_SHARE = 0.1
SUBSET_SHARE = 0.5
BACKGROUND_SHARE = 0.3
LATE_SHARE = 0.7
WARM_UP = 3


@dataclass(frozen=True)
class Design:
    """A U-Net and how it is trained.

    Attributes:
        difficulty: of the training scenes.
        unet: arguments of `UNet2DConditionModel`.
        live: the attention layers that are trained; the others keep zero weights. Without any, all are trained.
        prediction: what the U-Net predicts, as diffusers calls it.
        vae_steps, unet_steps, batch, scenes: how long, and on how much.
    """

    difficulty: Difficulty
    unet: dict[str, Any]
    live: tuple[str, ...]
    prediction: Literal["epsilon", "v_prediction"]
    vae_steps: int
    unet_steps: int
    batch: int
    scenes: int


DESIGNS = {
    # Attention on the way down, at 16, 8, 4 and (mid block) 2; one layer per block, a plain level above. At 32 x 32
    # attention cost half of the time and stayed noise; the level below it is the first to know the classes. With
    # attention on the way up as well, as in Stable Diffusion, the text was read there without saying where.
    "shapes": Design(
        difficulty=DIFFICULTIES["easy"],
        unet={
            "block_out_channels": (32, 64, 96, 96, 96),
            "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            "up_block_types": ("UpBlock2D",) * 5,
            "layers_per_block": 1,
            "attention_head_dim": 2,
        },
        live=(),
        prediction="epsilon",
        vae_steps=250,
        unet_steps=3000,
        batch=16,
        scenes=5000,
    ),
    # Self-attention with one head at 32 x 32, behind two blocks of convolutions, and cross-attention at 16 x 16, both
    # on the way down. With other layers trained from the start, or on the small objects of the standard scenes, none
    # became cohesive (docs/notes/experiments.md).
    "shapes_standard": Design(
        difficulty=replace(DIFFICULTIES["standard"], radius=(13.0, 34.0)),
        unet={
            "block_out_channels": (32, 64, 128),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3,
            "up_block_types": ("UpBlock2D",) * 3,
            "layers_per_block": (2, 1, 1),
            "attention_head_dim": (1, 4, 4),  # numbers of heads
        },
        live=(
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
        ),
        prediction="v_prediction",
        vae_steps=500,
        unet_steps=2750,
        batch=32,
        scenes=8000,
    ),
}


@dataclass(frozen=True)
class Pool:
    """All training scenes.

    Attributes:
        latents: float32 (n, c, h, w) of the scenes and their mirror images.
        captions: int64 (n, CAPTIONS, TEXT_LENGTH), token ids of some captions of each.
    """

    latents: torch.Tensor
    captions: torch.Tensor


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    design = DESIGNS[args.model]
    scenes = draw_pool(args.seed, args.scenes, design.difficulty)
    vae = build_vae().to(device)
    vae_loss = train_vae(vae, scenes, args.vae_steps, VAE_BATCH, args.seed)
    tokenizer = build_tokenizer(caption_words())
    pool = Pool(encode(vae, scenes), draw_captions(scenes, tokenizer, args.seed).to(device))
    text_encoder = build_text_encoder(tokenizer).to(device)
    unet = build_unet(design).to(device, memory_format=torch.channels_last)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
        prediction_type=design.prediction,
    )

    def save(step: int, loss: float) -> None:
        save_pipeline(args.out, vae, text_encoder, tokenizer, unet, scheduler)
        provenance = {
            "data": {
                "source": "shapes",
                "seed": args.seed,
                "difficulty": asdict(design.difficulty),
                "scenes": args.scenes,
                "size": SIZE,
            },
            "vae": {"steps": args.vae_steps, "loss": round(vae_loss, 5), "parameters": count(vae)},
            "unet": {"step": step, "of": args.unet_steps, "loss": round(loss, 5), "parameters": count(unet)},
            "text_encoder": {"parameters": count(text_encoder)},
            "batch": args.batch,
            "learning_rate": args.learning_rate,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
            "seconds": round(time.perf_counter() - started),
            "torch": torch.__version__,
        }
        (args.out / "training.json").write_text(json.dumps(provenance, indent=2) + "\n")

    train_unet(unet, text_encoder, scheduler, pool, args, save)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training scenes, weights and noise")
    parser.add_argument("--model", choices=DESIGNS, default="shapes_standard", help="which of the models that ship")
    parser.add_argument("--scenes", type=int, help="training scenes drawn once")
    parser.add_argument("--vae-steps", type=int)
    parser.add_argument("--unet-steps", type=int)
    parser.add_argument("--batch", type=int, help="scenes in a step of the U-Net")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--save-every", type=int, default=1000, help="steps between saved pipelines")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    for name in ("scenes", "vae_steps", "unet_steps", "batch"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(DESIGNS[arguments.model], name))
    try:
        claim_folder(arguments.out, "train_shapes_diffusion.py")
    except OutputError as error:
        parser.error(str(error))
    return arguments


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def draw_pool(seed: int, scenes: int, difficulty: Difficulty) -> list[Scene]:
    with Progress() as progress:
        numbers = progress.track(range(scenes), description="drawing scenes")
        return [draw_scene(np.random.default_rng([seed, number]), difficulty=difficulty) for number in numbers]


def draw_captions(scenes: list[Scene], tokenizer: CLIPTokenizer, seed: int) -> torch.Tensor:
    """Token ids of captions of every scene and of its mirror image: int64 (2 n, CAPTIONS, TEXT_LENGTH)."""
    vocabulary, rng = load_vocabulary("shapes"), np.random.default_rng([seed, 2])
    names = [[vocabulary.prompt(index) for index in scene.classes] for scene in scenes]
    captions = [
        draw_caption(rng, own, scene.background)
        for own, scene in zip(names, scenes, strict=True)
        for _ in range(2 * CAPTIONS)
    ]
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return ids.view(2 * len(scenes), CAPTIONS, TEXT_LENGTH)


def caption_words() -> list[str]:
    """The words of Shapes' captions."""
    classes = load_vocabulary("shapes").classes
    return ["a", "photograph", "of", "and", "on", *BACKGROUNDS, *(entry.prompt for entry in classes)]


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer that knows some words whole and spells every other ASCII word letter by letter."""
    symbols = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    merges = []
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            tokens.append(parts[0])
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=list(dict.fromkeys(merges)),
        model_max_length=TEXT_LENGTH,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Token and position embeddings without transformer layers.

    Layers would let the padding after the prompt carry the classes, and the class tokens' maps would lose their place.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH,
        num_hidden_layers=0,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet(design: Design) -> UNet2DConditionModel:
    """A plain `UNet2DConditionModel`; attention layers that are not trained have zero weights and cost no time."""
    unet = UNet2DConditionModel(
        sample_size=SIZE // 4, cross_attention_dim=TEXT_WIDTH, norm_num_groups=16, **design.unet
    )
    for name, module in unet.named_modules():
        if design.live and isinstance(module, Attention) and name not in design.live:
            for parameter in module.parameters():
                torch.nn.init.zeros_(parameter)
                parameter.requires_grad_(False)
            module.set_processor(skip)
    return unet


def skip(attention: Attention, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    """What an attention layer with zero weights gives, without computing it."""
    return torch.zeros_like(hidden_states)


def train_unet(unet, text_encoder, scheduler, pool, args, save) -> None:
    """Train on the latents; every `args.save_every` steps and at the end, `save(step, loss)`."""
    models = [unet, text_encoder]
    optimiser, schedule = build_optimiser(models, args.learning_rate, args.unet_steps)

    def descend_once() -> torch.Tensor:
        loss = unet_loss(unet, text_encoder, scheduler, pool, args.batch)
        descend(loss, optimiser, models)
        return loss.detach()

    advance = captured(descend_once) if pool.latents.is_cuda else descend_once
    average, started = 0.0, time.perf_counter()
    with Progress() as progress:
        for step in progress.track(range(args.unet_steps), description="training the U-Net"):
            average = smooth(average, float(advance()), step)
            schedule.step()
            if step % LOG_EVERY == 0:
                progress.console.print(f"unet step {step} loss {average:.4f} {time.perf_counter() - started:.0f} s")
            if (step + 1) % args.save_every == 0 or step + 1 == args.unet_steps:
                save(step + 1, average)


def captured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """A step as a CUDA graph, since launching its many small kernels takes longer than running them.

    Capturing runs the step WARM_UP times.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def unet_loss(unet, text_encoder, scheduler, pool: Pool, batch: int) -> torch.Tensor:
    """Mean squared error of the prediction, for scenes, captions, timesteps and noise drawn at random."""
    device = pool.latents.device
    chosen = torch.randint(len(pool.latents), (batch,), device=device)
    latents = pool.latents[chosen]
    ids = pool.captions[chosen, torch.randint(CAPTIONS, (batch,), device=device)]
    timesteps = draw_timesteps(batch, scheduler.config.num_train_timesteps, device)
    noise = torch.randn_like(latents)
    noisy = scheduler.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
        predicted = unet(noisy, timesteps, text_encoder(ids)[0]).sample
    is_noise = scheduler.config.prediction_type == "epsilon"
    wanted = noise if is_noise else scheduler.get_velocity(latents, noise, timesteps)
    return F.mse_loss(predicted.float(), wanted)


def draw_timesteps(count: int, steps: int, device: torch.device) -> torch.Tensor:
    """Mostly late ones: objects are large, so that only strong noise hides their class and makes the text useful."""
    draws = torch.rand(count, 2, device=device)
    late = torch.rand(count, device=device) < LATE_SHARE
    return (torch.where(late, draws.amax(1), draws[:, 0]) * steps).long()


def draw_caption(rng: np.random.Generator, names: list[str], background: str) -> str:
    """A sentence with the scene's classes in any order, at times with only some: prompts at labelling time name one."""
    if rng.random() < EMPTY_CAPTION_SHARE:
        return ""
    count = rng.integers(1, len(names) + 1) if rng.random() < SUBSET_SHARE else len(names)
    sentence = caption(list(rng.permutation(names)[:count]), background)
    return sentence if rng.random() < BACKGROUND_SHARE else sentence.removesuffix(f" on {background}")


def save_pipeline(out: Path, vae, text_encoder, tokenizer, unet, scheduler) -> None:
    """Save copies of the parts in float16, as they ship."""
    pipeline = StableDiffusionPipeline(
        vae=deepcopy(vae).half(),
        text_encoder=deepcopy(text_encoder).half(),
        tokenizer=tokenizer,
        unet=deepcopy(unet).half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)


if __name__ == "__main__":
    main()
