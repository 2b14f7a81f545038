"""Captioners beside BLIP with seeded random weights, built from real transformers classes."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from tests.plain.blip import SHAPES, SMALL, SPECIAL, WORDS

VISION = {**SMALL, "image_size": 32, "patch_size": 8}
SIZE = {"height": 32, "width": 32}


def tiny_blip2(folder: Path) -> Path:
    """BLIP-2 with OPT for its language model."""
    tokenizer, queries = _opt_tokenizer(), 4
    processor = Blip2Processor(BlipImageProcessor(size=SIZE), tokenizer, num_query_tokens=queries)
    text = {
        "model_type": "opt",
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**SMALL, "encoder_hidden_size": 32, "vocab_size": 10},
        text_config=text,
        num_query_tokens=queries,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return _save(Blip2ForConditionalGeneration, config, processor, folder)


def tiny_git(folder: Path) -> Path:
    """GIT, whose tokenizer ends every sentence, also one to be continued."""
    vocabulary = {
        word: index for index, word in enumerate([*SPECIAL, *WORDS, *SHAPES, *(f"##{c}" for c in "abcdefgh")])
    }
    tokenizer = BertTokenizer(vocab=vocabulary, model_input_names=["input_ids", "attention_mask"])
    special = {
        "vocab_size": len(vocabulary),
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": 0,
    }
    config = GitConfig(vision_config=VISION, **SMALL, **special, max_position_embeddings=64)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE)
    return _save(GitForCausalLM, config, GitProcessor(images, tokenizer), folder)


def tiny_without_leads(folder: Path) -> Path:
    """A captioner of ViT and GPT-2, published with a processor of images alone."""
    text = GPT2Config(vocab_size=10, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), text)
    return _save(VisionEncoderDecoderModel, config, ViTImageProcessor(size=SIZE), folder)


def _save(model_class: type, config: object, processor: object, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config=config)
        for parameter in model.parameters():
            if parameter.dim() > 1:  # far enough from zero for captions that depend on the image
                torch.nn.init.normal_(parameter, std=0.6)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _opt_tokenizer() -> PreTrainedTokenizerFast:
    """Words as they are; `</s>` begins a sentence and ends a caption, as OPT has it."""
    words = ["</s>", "<pad>", "<unk>", *WORDS, *SHAPES]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
