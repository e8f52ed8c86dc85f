"""Decoders that LMRec reads with: one that starts at random, one that is pretrained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import polars as pl
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from recsys.batch.tokens import END
from recsys.errors import ConfigError
from recsys.ranges import above, at_least, heads, proper_share, share
from recsys.reading import read_json
from recsys.tasks.morphemes import Morphemes
from recsys.tasks.tokenizers import Cut, train_tokenizer

PreSplit = Literal["none", "whitespace", "kiwi"]

Family = Literal["gpt_neox", "llama", "hyperclovax"]
CLASSES: Mapping[Family, str] = {
    "gpt_neox": "GPTNeoX",
    "llama": "Llama",
    "hyperclovax": "HyperCLOVAX",
}
"""Of each family what transformers' classes are called."""


@dataclass(frozen=True)
class Attention:
    """How the attention of a decoder is divided, where it is not evenly.

    Attributes:
        num_kv_heads: of keys and values, each shared by as many queries; None has one a query.
            GPT-NeoX's blocks have no others.
        head_dim: of a head; None divides the dimensions among them.
        rotary_share: of a head's dimensions, which turn with the position; Llama's and HyperCLOVA
            X's turn all of them.

    Raises:
        ConfigError: an option is out of its range.
    """

    num_kv_heads: int | None = None
    head_dim: int | None = None
    rotary_share: float = 0.25

    def __post_init__(self) -> None:
        at_least(1, num_kv_heads=self.num_kv_heads, head_dim=self.head_dim)
        above(0, rotary_share=self.rotary_share)
        share(rotary_share=self.rotary_share)

    @property
    def are_even(self) -> bool:
        """Whether a head of queries has its own keys and values, and its part of the dimensions."""
        return self.num_kv_heads is None and self.head_dim is None


@dataclass(frozen=True)
class Decoder:
    """A decoder from scratch, and a byte-level BPE trained on the log's own words.

    Attributes:
        family: whose blocks: GPT-NeoX's, Llama's or HyperCLOVA X's.
        num_layers, embedding_dim, num_heads, ffn_dim: of the blocks.
        attention: how it is divided among heads.
        tied: input and output share one matrix of tokens.
        vocab_size: tokens at most.
        pre_split: pieces of a text over whose ends no token goes: `whitespace`, words, each with
            the blank before it, numbers and punctuation apart; `kiwi`, Korean morphemes, each with
            the blanks behind it, which needs the extra `korean`; `none`, the whole text.
        max_length: positions at most.
        dropout: of the embeddings and of what each layer adds; GPT-NeoX's blocks alone have it.
        semantic_start: tokens start as their latent semantic vectors in the texts that are trained
            on, and the first layer as their mean; otherwise all weights start at random.

    Raises:
        ConfigError: an option that the family's blocks have not, heads that do not divide the
            dimensions, an option is out of its range, or the installed transformers does not know
            the family.
    """

    family: Family = "gpt_neox"
    num_layers: int = 2
    embedding_dim: int = 64
    num_heads: int = 2
    ffn_dim: int = 256
    attention: Attention = Attention()
    tied: bool = True
    vocab_size: int = 8192
    pre_split: PreSplit = "whitespace"
    max_length: int = 2048
    dropout: float = 0.0
    semantic_start: bool = True

    def __post_init__(self) -> None:
        heads(num_heads=self.num_heads, embedding_dim=self.embedding_dim)
        at_least(1, num_layers=self.num_layers, ffn_dim=self.ffn_dim)
        at_least(1, vocab_size=self.vocab_size, max_length=self.max_length)
        proper_share(dropout=self.dropout)
        self._check_heads()
        if self.family != "gpt_neox" and self.dropout:
            raise ConfigError(f"dropout={self.dropout}: blocks of {self.family} have none; set 0")
        if not hasattr(transformers, f"{CLASSES[self.family]}Config"):
            raise ConfigError(
                f"family={self.family}: transformers {transformers.__version__} does not know it; "
                "install a later one (hyperclovax came with 5.9)"
            )

    def _check_heads(self) -> None:
        if self.attention.are_even:
            return
        if self.family == "gpt_neox":
            raise ConfigError(
                f"attention={self.attention}: blocks of gpt_neox divide evenly; leave num_kv_heads "
                "and head_dim out"
            )
        if self.num_heads % (self.attention.num_kv_heads or self.num_heads):
            raise ConfigError(
                f"num_kv_heads={self.attention.num_kv_heads} does not divide num_heads="
                f"{self.num_heads}; choose a divisor"
            )
        if self.semantic_start:
            raise ConfigError(
                f"semantic_start=true with attention={self.attention}: a first layer of such heads "
                "is no mean; set semantic_start=false"
            )

    def build(self) -> PreTrainedModel:
        """The decoder with random weights."""
        name = CLASSES[self.family]
        config = getattr(transformers, f"{name}Config")(**self._shape())
        return cast(PreTrainedModel, getattr(transformers, f"{name}ForCausalLM")(config))

    def _shape(self) -> dict[str, Any]:
        """What transformers' configs call it."""
        shape: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hidden_size": self.embedding_dim,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "intermediate_size": self.ffn_dim,
            "max_position_embeddings": self.max_length,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "use_cache": True,
        }
        if self.family == "gpt_neox":
            rotary = {"rotary_pct": self.attention.rotary_share}
            return shape | rotary | {"hidden_dropout": self.dropout}
        divided = {
            "num_key_value_heads": self.attention.num_kv_heads,
            "head_dim": self.attention.head_dim,
        }
        return shape | {name: number for name, number in divided.items() if number is not None}

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
        if self.family != "gpt_neox":
            value, out = first.self_attn.v_proj.weight, first.self_attn.o_proj.weight
        else:
            # Rows of a head: its queries', its keys', its values'.
            packed = first.attention.query_key_value.weight
            by_head = packed.view(self.num_heads, 3, -1, self.embedding_dim)
            value, out = by_head[:, 2], first.attention.dense.weight
        identity = torch.eye(self.embedding_dim)
        value += identity.view_as(value)
        out += identity

    @cached_property
    def cut(self) -> Cut | None:
        """What cuts texts before their tokenizer does; None where that does all of it."""
        return Morphemes().cut if self.pre_split == "kiwi" else None

    def tokenizer(self, texts: pl.Series) -> PreTrainedTokenizerFast:
        words = self.pre_split == "whitespace"
        trained = train_tokenizer(texts, self.vocab_size, cut=self.cut, words=words)
        return PreTrainedTokenizerFast(tokenizer_object=trained, bos_token=END, eos_token=END)


@dataclass(frozen=True)
class Pretrained:
    """A causal language model of the Hugging Face form, with its own tokenizer.

    Nothing is looked up anywhere else, no code of the folder is run, and nobody is asked.

    Attributes:
        path: its folder; weights are read from safetensors only.
        lora_rank: of low-rank updates of its linear layers, which are then all of it that is
            trained; needs the extra `lora`. None trains everything.
        dtype: in which its weights are held, but for low-rank updates, which are float32 (a
            `trainer.precision` that ends in `-true` comes after it). In bfloat16 they take half
            the memory, and with `lora_rank` lose nothing by small steps.
        read_weights: otherwise the model has the folder's shape, and random weights.

    Raises:
        ConfigError: a rank that is not positive; in building, no such folder, or one that asks for
            code of others.
    """

    path: str
    lora_rank: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    read_weights: bool = True

    pre_split: ClassVar[PreSplit] = "whitespace"
    cut: ClassVar[None] = None
    """Nothing comes before its own tokenizer."""

    def __post_init__(self) -> None:
        at_least(1, lora_rank=self.lora_rank)

    def build(self) -> nn.Module:
        check_pretrained(Path(self.path))
        kind = {"dtype": getattr(torch, self.dtype)}  # not what the folder has, as is the default
        if self.read_weights:
            given = {"use_safetensors": True, **LOCAL, **kind}
            with _without_bars():
                model = AutoModelForCausalLM.from_pretrained(self.path, **given)
        else:
            config = AutoConfig.from_pretrained(self.path, **LOCAL)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, **kind)
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


def blocks_of(decoder: nn.Module) -> list[nn.Module]:
    """The layers of a decoder, in their order, as transformers' own classes name them."""
    model = causal_of(decoder)
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def is_divided(decoder: nn.Module) -> bool:
    """Whether ranks hold a part of each layer, and have to call it equally often."""
    return any(isinstance(module, FSDPModule) for module in decoder.modules())


def checkpointed(model: PreTrainedModel) -> None:
    """Let each layer compute its activations again for the gradients, not hold them until then."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:  # transformers before 5.20
        enable = model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # Transformers' hook for the other kind, which makes frozen embeddings take gradients.
    model.disable_input_require_grads()


def logit_scale(decoder: nn.Module) -> float:
    """What the products of a state and the tokens' vectors are multiplied by to be logits.

    Maximal update parametrisation has such a number: HyperCLOVA X multiplies by it, Granite
    divides.
    """
    config = causal_of(decoder).config
    scale = float(getattr(config, "logits_scaling", 1.0))
    return 1 / scale if config.model_type.startswith("granite") else scale


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
