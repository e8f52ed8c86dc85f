"""Decoders that LMRec reads with: one that starts at random, one that is pretrained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from recsys.batch.tokens import END
from recsys.errors import ConfigError
from recsys.ranges import at_least, heads, proper_share
from recsys.reading import read_json
from recsys.tasks.tokenizers import train_tokenizer


@dataclass(frozen=True)
class Decoder:
    """A decoder from scratch, and a byte-level BPE trained on the log's own words.

    Attributes:
        family: whose blocks: GPT-NeoX's or Llama's.
        num_layers, embedding_dim, num_heads, ffn_dim: of the blocks.
        vocab_size: tokens at most.
        max_length: positions at most.
        dropout: of the embeddings and of what each layer adds; Llama's blocks have none.
        semantic_start: tokens start as their latent semantic vectors in the texts that are trained
            on, and the first layer as their mean; otherwise all weights start at random.

    Raises:
        ConfigError: dropout in blocks that have none, heads that do not divide the dimensions, or
            an option is out of its range.
    """

    family: Literal["gpt_neox", "llama"] = "gpt_neox"
    num_layers: int = 2
    embedding_dim: int = 64
    num_heads: int = 2
    ffn_dim: int = 256
    vocab_size: int = 8192
    max_length: int = 2048
    dropout: float = 0.0
    semantic_start: bool = True

    def __post_init__(self) -> None:
        heads(num_heads=self.num_heads, embedding_dim=self.embedding_dim)
        at_least(1, num_layers=self.num_layers, ffn_dim=self.ffn_dim)
        at_least(1, vocab_size=self.vocab_size, max_length=self.max_length)
        proper_share(dropout=self.dropout)
        if self.family == "llama" and self.dropout:
            raise ConfigError(f"dropout={self.dropout}: blocks of llama have none; set 0")

    def build(self) -> PreTrainedModel:
        """The decoder with random weights; input and output share one matrix of tokens."""
        shared: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.embedding_dim,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": self.ffn_dim,
            "max_position_embeddings": self.max_length,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "use_cache": True,
        }
        if self.family == "llama":
            return LlamaForCausalLM(LlamaConfig(**shared))
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shared, hidden_dropout=self.dropout))

    @torch.no_grad()
    def start_from(self, vectors: Tensor, model: PreTrainedModel) -> None:
        """Start from what tokens mean: a text's state is then about the mean of its tokens.

        Args:
            vectors: (vocabulary, D) of length 1; a token of zeros stays random.
            model: as `build` made it.
        """
        base: Any = model.base_model
        tokens = base.get_input_embeddings().weight
        known = vectors.any(1)
        # As long as the random ones are.
        tokens[known] = vectors[known] * tokens[~known].norm(dim=1).mean()
        first = base.layers[0]
        if self.family == "llama":
            value, out = first.self_attn.v_proj.weight, first.self_attn.o_proj.weight
        else:
            # Rows of a head: its queries', its keys', its values'.
            packed = first.attention.query_key_value.weight
            by_head = packed.view(self.num_heads, 3, -1, self.embedding_dim)
            value, out = by_head[:, 2], first.attention.dense.weight
        identity = torch.eye(self.embedding_dim)
        value += identity.view_as(value)
        out += identity

    def tokenizer(self, texts: pl.Series) -> PreTrainedTokenizerFast:
        trained = train_tokenizer(texts, self.vocab_size)
        return PreTrainedTokenizerFast(tokenizer_object=trained, bos_token=END, eos_token=END)


@dataclass(frozen=True)
class Pretrained:
    """A causal language model of the Hugging Face form, with its own tokenizer.

    Nothing is looked up anywhere else, no code of the folder is run, and nobody is asked.

    Attributes:
        path: its folder; weights are read from safetensors only.
        lora_rank: of low-rank updates of its linear layers, which are then all of it that is
            trained; needs the extra `lora`. None trains everything.
        read_weights: otherwise the model has the folder's shape, and random weights.

    Raises:
        ConfigError: a rank that is not positive; in building, no such folder, or one that asks for
            code of others.
    """

    path: str
    lora_rank: int | None = None
    read_weights: bool = True

    def __post_init__(self) -> None:
        at_least(1, lora_rank=self.lora_rank)

    def build(self) -> nn.Module:
        check_pretrained(Path(self.path))
        if self.read_weights:
            model = AutoModelForCausalLM.from_pretrained(self.path, use_safetensors=True, **LOCAL)
        else:
            config = AutoConfig.from_pretrained(self.path, **LOCAL)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        model.train()  # Lightning keeps the mode in which it finds a module
        if self.lora_rank is None:
            return model
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise ConfigError("lora_rank needs peft; install recsys[lora]") from None
        config = LoraConfig(r=self.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, config)

    def tokenizer(self, texts: pl.Series) -> PreTrainedTokenizerFast:
        check_pretrained(Path(self.path))
        return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(self.path, **LOCAL))


LOCAL: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}


BUILT_IN = (None, "eager", "sdpa")
"""Ways to compute attention that are torch's own; others are fetched as code."""


def check_pretrained(folder: Path) -> None:
    """Refuse a folder of a pre-trained model that asks for anything but its weights.

    Raises:
        ConfigError: it is no such folder, or its files name code, kernels or models elsewhere.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(f"path={folder} is no folder of a pre-trained model: no config.json")
    if (folder / "adapter_config.json").exists():
        raise ConfigError(f"path={folder} is an adapter of another model; merge the two first")
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        for name, value in _options(read_json(path) if path.exists() else {}):
            asks = value not in BUILT_IN if name.endswith("_implementation") else value is not None
            if asks and name.endswith(("_implementation", "auto_map", "quantization_config")):
                raise ConfigError(f"{path}: {name}={value} asks for code of others; remove it")


def _options(config: Any) -> Iterator[tuple[str, Any]]:
    """All names in a config, at any depth, with their values."""
    if isinstance(config, list):
        config = {"": dict(enumerate(config))}
    if isinstance(config, dict):
        for name, value in config.items():
            yield str(name), value
            yield from _options(value)


def causal_of(decoder: nn.Module) -> PreTrainedModel:
    """A decoder with its language head, without the wrapper of low-rank updates."""
    wrapped: Any = decoder
    return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped


def vocabulary_size(decoder: nn.Module) -> int:
    """How many tokens a decoder has vectors of."""
    return cast(Tensor, causal_of(decoder).get_input_embeddings().weight).shape[0]


def write_decoder(folder: Path, decoder: nn.Module, tokenizer: Tokenizer, end: int) -> None:
    """A decoder and its tokenizer as Hugging Face's `from_pretrained` reads them.

    Args:
        folder: where they are written.
        decoder: low-rank updates are written as part of the weights that they change.
        tokenizer: with the token `end`, which opens and closes a text.
        end: [EOS].
    """
    whole: Any = decoder
    if hasattr(whole, "merge_and_unload"):
        whole = deepcopy(whole).merge_and_unload()
    with _without_bars():
        whole.save_pretrained(folder)
    token = tokenizer.id_to_token(end)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=token, eos_token=token
    ).save_pretrained(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without Hugging Face's own progress bars."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
