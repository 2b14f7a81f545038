"""Train the small CLIP, the small BLIP captioner and the small spaCy pipeline that ship with the package.

Real transformers classes in float16 safetensors, trained on Shapes alone, and a spaCy pipeline trained on such
sentences as the captioner writes. They load through exactly the code that loads the published checkpoints.

    python scripts/train_shapes_text.py --out runs/shapes-text
    python scripts/train_shapes_text.py --out /tmp/try --scenes 200 --clip-steps 50 --captioner-steps 50
"""

import argparse
import json
import string
import time
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from descent import LOG_EVERY, build_optimiser, descend, smooth
from rich.progress import Progress
from shapes_nouns import CLASS_WORDS, ORDINARY, pick, plural, spell, train_nouns
from train_shapes_diffusion import build_tokenizer, caption_words, count, draw_pool
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import claim_folder
from pseudolabel.shapes.difficulty import DIFFICULTIES
from pseudolabel.shapes.world import BACKGROUNDS, SIZE, Scene, caption
from pseudolabel.vocabulary import load_vocabulary

SHAPES = load_vocabulary("shapes")
SIDE = 64  # of the images that both models see
VISION = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
VISION |= {"image_size": SIDE, "patch_size": 16}
CLIP_TEXT = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2}
CAPTIONER_TEXT = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT_LENGTH = 77
SENTENCES = ("a photo of a {}", "a photo of {}", "a photograph of {}", "a picture of a {}", "an image of a {}", "{}")
# Words of one meaning: every class's with their plurals, then every background.
GROUPS = [*((*words, *map(plural, words)) for words in CLASS_WORDS), *((name,) for name in BACKGROUNDS)]
SYNONYM_SHARE = 0.3
OTHERS = 16  # ordinary words and made-up ones per step
PREFIXES = ("a photograph of", "a photograph of", "a picture of")
CELLS = (8, 16, 32)  # sides of the maps that regions come from
EXACT_SHARE = 0.3


@dataclass(frozen=True)
class Pool:
    """The training scenes: RGB (n, 3, size, size), `labels` and `objects` as in `Scene`; all uint8."""

    images: torch.Tensor
    labels: torch.Tensor
    objects: torch.Tensor
    classes: list[tuple[int, ...]]
    backgrounds: list[int]

    def words(self, chosen: np.ndarray) -> torch.Tensor:
        """The word of every pixel, int64 (b, size, size): 0..5 the classes, 6.. the backgrounds."""
        grounds = torch.tensor([self.backgrounds[i] for i in chosen]) + len(SHAPES)
        labels = self.labels[chosen].long()
        return torch.where(labels > 0, labels - 1, grounds[:, None, None])


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    pool = stack(draw_pool(args.seed, args.scenes, DIFFICULTIES[args.difficulty]))
    data = {"source": "shapes", "seed": args.seed, "difficulty": args.difficulty, "scenes": args.scenes, "size": SIZE}
    provenance: dict = {"data": data}
    clip, tokenizer = build_clip()
    loss = train_clip(clip.to(device), tokenizer, pool, args)
    save_clip(args.out / "clip", clip, tokenizer)
    provenance["clip"] = {"steps": args.clip_steps, "loss": round(loss, 4), "parameters": count(clip)}
    captioner, processor = build_captioner()
    loss = train_captioner(captioner.to(device), processor, pool, args)
    save_captioner(args.out / "captioner", captioner, processor)
    provenance["captioner"] = {"steps": args.captioner_steps, "loss": round(loss, 4), "parameters": count(captioner)}
    loss = train_nouns(args.out / "nouns", args.nouns_steps, args.seed)
    provenance["nouns"] = {"steps": args.nouns_steps, "loss": round(loss, 4)}
    provenance |= {"batch": args.batch, "learning_rate": args.learning_rate, "torch": torch.__version__}
    provenance["seconds"] = round(time.perf_counter() - started)
    (args.out / "training.json").write_text(json.dumps(provenance, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the three models")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training scenes, weights and sentences")
    parser.add_argument("--scenes", type=int, default=4000, help="training scenes drawn once")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="easy", help="of the training scenes")
    parser.add_argument("--clip-steps", type=int, default=3000)
    parser.add_argument("--captioner-steps", type=int, default=1500)
    parser.add_argument("--nouns-steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    try:
        claim_folder(arguments.out, "train_shapes_text.py")
    except OutputError as error:
        parser.error(str(error))
    return arguments


def stack(scenes: list[Scene]) -> Pool:
    return Pool(
        torch.from_numpy(np.stack([np.asarray(scene.image) for scene in scenes])).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([scene.labels for scene in scenes])),
        torch.from_numpy(np.stack([scene.objects for scene in scenes])),
        [scene.classes for scene in scenes],
        [BACKGROUNDS.index(scene.background) for scene in scenes],
    )


# CLIP


def build_clip() -> tuple[CLIPModel, CLIPTokenizer]:
    words = [*caption_words(), "an", *chain(*GROUPS), *ORDINARY.split()]
    # Longest first: and, merged early, would cut sand in two.
    tokenizer = build_tokenizer(sorted(dict.fromkeys(words), key=len, reverse=True))
    text = CLIPTextConfig(
        **CLIP_TEXT,
        vocab_size=len(tokenizer),
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = CLIPConfig(text_config=text, vision_config=CLIPVisionConfig(**VISION), projection_dim=64)
    return CLIPModel(config), tokenizer


def train_clip(model: CLIPModel, tokenizer: CLIPTokenizer, pool: Pool, args: argparse.Namespace) -> float:
    rng = np.random.default_rng([args.seed, 1])
    optimiser, schedule = build_optimiser([model], args.learning_rate, args.clip_steps)
    average, started = 0.0, time.perf_counter()
    with Progress() as progress:
        for step in progress.track(range(args.clip_steps), description="training CLIP"):
            chosen = rng.integers(len(pool.classes), size=args.batch)
            loss = image_loss(model, tokenizer, pool, chosen, rng) + word_loss(model, tokenizer, rng)
            descend(loss, optimiser, [model])
            schedule.step()
            average = smooth(average, float(loss.detach()), step)
            if step % LOG_EVERY == 0:
                progress.console.print(f"clip step {step} loss {average:.4f} {time.perf_counter() - started:.0f} s")
    return average


def image_loss(
    model: CLIPModel, tokenizer: CLIPTokenizer, pool: Pool, chosen: np.ndarray, rng: np.random.Generator
) -> torch.Tensor:
    """Images are equally near to the sentences of all their classes, regions to what covers them by its share."""
    regions, shares = draw_regions(pool, chosen, rng)
    present = torch.stack([present_classes(pool.classes[i]) for i in chosen])
    scenes = pool.images[chosen].float()
    pixels = normalise(torch.cat([scenes, scenes * regions[:, None]]), clip_images()).to(model.device)
    images = F.normalize(model.get_image_features(pixels).pooler_output)
    texts = tokenizer(draw_sentences(rng), padding=True, return_tensors="pt").to(model.device)
    logits = model.logit_scale.exp() * images @ F.normalize(model.get_text_features(**texts).pooler_output).T
    of_scenes, of_regions = logits.chunk(2)
    named = F.cross_entropy(of_scenes[:, : len(SHAPES)], present.to(model.device))
    return named + F.cross_entropy(of_regions, shares.to(model.device))


def draw_regions(pool: Pool, chosen: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One region per scene, as ragged as clusters of coarse maps are, or exact.

    Returns:
        The regions, float32 (b, size, size) of 0 and 1, and the share of every word in them, float32 (b, words).
    """
    objects = pool.objects[chosen]
    wanted = torch.tensor([rng.integers(int(scene.max()) + 1) for scene in objects])
    exact = (objects == wanted[:, None, None]).float()
    cells = int(rng.choice(CELLS))
    cover = F.adaptive_avg_pool2d(exact, cells)
    noise = torch.from_numpy(rng.normal(0, 1, (len(chosen), 1, 5, 5))).float()
    noise = F.interpolate(noise, size=(cells, cells), mode="bicubic")[:, 0]
    draws = torch.from_numpy(rng.random((2, len(chosen), 1, 1))).float()
    loudness, threshold = 0.4 * draws[0], 0.25 + 0.5 * draws[1]
    ragged = F.interpolate((cover + loudness * noise > threshold)[:, None].float(), size=exact.shape[1:])[:, 0]
    take_exact = torch.from_numpy(rng.random(len(chosen)) < EXACT_SHARE) | (ragged.sum((1, 2)) == 0)
    regions = torch.where(take_exact[:, None, None], exact, ragged)
    words = pool.words(chosen)
    areas = torch.stack([(regions * (words == word)).sum((1, 2)) for word in range(len(GROUPS))], 1)
    return regions, areas / areas.sum(1, keepdim=True)


def present_classes(classes: tuple[int, ...]) -> torch.Tensor:
    """Equal shares of the classes in a scene: float32 (classes,)."""
    shares = torch.zeros(len(SHAPES))
    shares[[index - 1 for index in classes]] = 1 / len(classes)
    return shares


def normalise(pixels: torch.Tensor, processor: CLIPImageProcessor | BlipImageProcessor) -> torch.Tensor:
    """What the image processor makes of RGB images, float32 (n, 3, h, w) in 0..255."""
    small = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True) / 255
    mean, sigma = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    return (small - mean) / sigma


def draw_sentences(rng: np.random.Generator) -> list[str]:
    """One sentence per group of words."""
    words = [group[0] if rng.random() > SYNONYM_SHARE else pick(rng, group) for group in GROUPS]
    return [pick(rng, SENTENCES).format(word) for word in words]


def word_loss(model: CLIPModel, tokenizer: CLIPTokenizer, rng: np.random.Generator) -> torch.Tensor:
    """Words of one meaning are alike, and at right angles to all others, as mean token embeddings and as embeddings."""
    groups = [*GROUPS, *((word,) for word in rng.choice(ORDINARY.split(), OTHERS, replace=False))]
    groups += [(resembling(rng),) for _ in range(OTHERS)]
    owner = torch.tensor([number for number, group in enumerate(groups) for _ in group], device=model.device)
    same = owner[:, None] == owner
    inputs = tokenizer([*chain(*groups)], padding=True, return_tensors="pt").to(model.device)
    output = model.text_model(**inputs)
    of_word = (inputs.input_ids != tokenizer.bos_token_id) & (inputs.input_ids != tokenizer.eos_token_id)
    embeddings = (output.last_hidden_state * of_word[..., None]).sum(1)
    loss = torch.zeros((), device=model.device)
    for units in (F.normalize(embeddings), F.normalize(model.text_projection(output.pooler_output))):
        cosines = units @ units.T
        loss = loss + (1 - cosines[same]).mean() + F.relu(cosines[~same]).mean()
    return loss


def resembling(rng: np.random.Generator) -> str:
    """A made-up word that begins as a word of Shapes does."""
    known = pick(rng, GROUPS[rng.integers(len(GROUPS))])
    return known[: rng.integers(len(known))] + spell(rng, 2, 7)


def clip_images() -> CLIPImageProcessor:
    """Squashes to the square, as every part of Shapes does; CLIP's own processor cuts the margins off."""
    return CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False, resample=2)


def save_clip(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    deepcopy(model).half().save_pretrained(folder, safe_serialization=True)
    CLIPProcessor(clip_images(), tokenizer).save_pretrained(folder)


# The captioner


def build_captioner() -> tuple[BlipForConditionalGeneration, BlipProcessor]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    symbols = string.ascii_lowercase + string.digits + string.punctuation
    words = dict.fromkeys([*special, *caption_words(), "picture", *symbols, *(f"##{symbol}" for symbol in symbols)])
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    text = {
        **CAPTIONER_TEXT,
        "vocab_size": len(words),
        "bos_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": TEXT_LENGTH,
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=VISION, projection_dim=64))
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE}, resample=2)
    return model, BlipProcessor(images, tokenizer)


def train_captioner(
    model: BlipForConditionalGeneration, processor: BlipProcessor, pool: Pool, args: argparse.Namespace
) -> float:
    """Captions with the classes in any order, so that each class can be given and the others follow."""
    rng = np.random.default_rng([args.seed, 2])
    optimiser, schedule = build_optimiser([model], args.learning_rate, args.captioner_steps)
    average, started = 0.0, time.perf_counter()
    with Progress() as progress:
        for step in progress.track(range(args.captioner_steps), description="training the captioner"):
            chosen = rng.integers(len(pool.classes), size=args.batch)
            captions = [
                draw_caption(rng, [SHAPES.names[c] for c in pool.classes[i]], pool.backgrounds[i]) for i in chosen
            ]
            pixels = pool.images[chosen].float()
            pixels = torch.where(torch.from_numpy(rng.random((len(chosen), 1, 1, 1)) < 0.5), pixels.flip(3), pixels)
            inputs = processor.tokenizer(captions, padding=True, return_tensors="pt").to(model.device)
            labels = inputs.input_ids.masked_fill(inputs.attention_mask == 0, -100)
            pixels = normalise(pixels, processor.image_processor).to(model.device)
            loss = model(pixels, inputs.input_ids, inputs.attention_mask, labels=labels).loss
            descend(loss, optimiser, [model])
            schedule.step()
            average = smooth(average, float(loss.detach()), step)
            if step % LOG_EVERY == 0:
                progress.console.print(
                    f"captioner step {step} loss {average:.4f} {time.perf_counter() - started:.0f} s"
                )
    return average


def draw_caption(rng: np.random.Generator, names: list[str], background: int) -> str:
    sentence = caption(list(rng.permutation(names)), BACKGROUNDS[background])
    return sentence.replace(PREFIXES[0], pick(rng, PREFIXES), 1)


def save_captioner(folder: Path, model: BlipForConditionalGeneration, processor: BlipProcessor) -> None:
    deepcopy(model).half().save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
