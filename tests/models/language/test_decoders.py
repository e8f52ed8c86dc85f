"""The shapes of published decoders, counted, and tiny ones of each family at work."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from recsys.batch.ragged import Ragged
from recsys.errors import ConfigError
from recsys.evaluation.ranking import Protocol
from recsys.models import LMRec
from recsys.models.language import Attention, Decoder, Pretrained, decoders
from recsys.models.language._added import Added
from recsys.models.language._states import TextStates
from recsys.models.language._texts import Texts
from recsys.models.language.decoders import checkpointed, logit_scale
from recsys.scoring import saved_model
from recsys.tasks.splits import Split, last_basket
from recsys.testing import checkerboard
from recsys.training.loop import fit
from recsys.training.options import TrainingOptions

CONF = Path(__file__).parents[3] / "conf" / "decoder"

needs_hyperclovax = pytest.mark.skipif(
    not hasattr(transformers, "HyperCLOVAXConfig"), reason="came with transformers 5.9"
)

COUNTS = {
    # arXiv 2306.02254
    "polyglot_ko_1_3b": 1_331_810_304,
    "polyglot_ko_3_8b": 3_809_974_272,
    "polyglot_ko_5_8b": 5_885_059_072,
    "polyglot_ko_12_8b": 12_893_603_840,
    # .57B, of which .45B are no tokens; 1.59B; 14,748M
    "hyperclovax_seed_0_5b": 566_281_216,
    "hyperclovax_seed_1_5b": 1_585_547_264,
    "hyperclovax_seed_think_14b": 14_748_112_896,
}


def shape(name: str) -> Decoder:
    options: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    attention = options.pop("attention")
    for given in (options, attention):
        given.pop("_target_")
    return Decoder(attention=Attention(**attention), **options)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_hyperclovax) if name.endswith("14b") else name
        for name in COUNTS
    ],
)
def test_a_published_shape_has_the_published_parameters(name: str) -> None:
    with torch.device("meta"):
        model = shape(name).build()
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]
    assert all(p.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize(("size", "turned"), [("5_8b", 64), ("12_8b", 64), ("1_3b", 64)])
def test_polyglot_turns_a_share_of_a_heads_dimensions(size: str, turned: int) -> None:
    with torch.device("meta"):
        model: Any = replace(shape(f"polyglot_ko_{size}"), num_layers=1).build()
    assert 2 * len(model.gpt_neox.rotary_emb.inv_freq) == turned
    assert model.config.hidden_act == "gelu"
    assert model.config.use_parallel_residual
    assert model.lm_head.weight is not model.gpt_neox.embed_in.weight


TINY: dict[str, Decoder] = {
    "polyglot": Decoder(attention=Attention(rotary_share=0.5), tied=False, semantic_start=False),
    "llama": Decoder("llama", attention=Attention(1, 12), semantic_start=False),
    "hyperclovax": Decoder(
        "hyperclovax", attention=Attention(1, 12), tied=False, semantic_start=False
    ),
}
SMALL = {"num_layers": 2, "embedding_dim": 16, "num_heads": 2, "ffn_dim": 32, "vocab_size": 300}
FAMILIES = [
    pytest.param(name, marks=needs_hyperclovax) if name == "hyperclovax" else name for name in TINY
]


def tiny(family: str) -> Decoder:
    return replace(TINY[family], **SMALL)


def config_of(split: Split, decoder: Decoder | dict[str, Any], **tuning: Any) -> dict[str, Any]:
    def part(name: str, **options: Any) -> dict[str, Any]:
        return {"_target_": f"recsys.models.language.{name}", **options}

    if isinstance(decoder, Decoder):
        attention = part("Attention", **vars(decoder.attention))
        options = {f.name: getattr(decoder, f.name) for f in fields(decoder)}
        decoder = part("Decoder", **options | {"attention": attention})
    return {
        "_target_": "recsys.models.LMRec",
        "num_items": split.num_items,
        "decoder": decoder,
        "template": {"_target_": "recsys.log.Template"},
        "language": part("Language", batch_size=2, row_length=32),
        "ranking": part("Ranking"),
        "tuning": part("Tuning", **tuning),
        "learning_rate": 0.02,
    }


@pytest.fixture(scope="module")
def split() -> Split:
    return last_basket(checkerboard(num_items=4, num_users=12))


TRAINING = TrainingOptions(max_epochs=1, device="cpu", monitor="ndcg@3")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_and_hugging_face_reads_it(
    family: str, split: Split, tmp_path: Path
) -> None:
    config = config_of(split, tiny(family))
    model = fit(saved_model.build(config), split, TRAINING, Protocol(ks=(3,)))
    assert isinstance(model, LMRec)
    saved_model.save(tmp_path / "model", model, split, config, mask_history=False)
    loaded = saved_model.load(tmp_path, device="cpu").model
    causal = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    tokens = model.text_tokens[None, :9].long()
    with torch.no_grad():
        assert loaded.score(split.test.history).equal(model.score(split.test.history))
        torch.testing.assert_close(causal(tokens).logits, model.causal(tokens).logits)


def states_of(model: PreTrainedModel) -> TextStates:
    no_text = Texts.of_strangers(Ragged.from_lists([[0]]), 1, torch.tensor(0), 512)
    return TextStates(model, Added(None, None), no_text)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_hugging_faces_loss(family: str) -> None:
    model = tiny(family).build()
    if family == "hyperclovax":
        model.config.logits_scaling = 0.3
        with torch.no_grad():
            model.get_output_embeddings().weight.normal_()
    texts = [torch.randint(1, 300, (1, length)) for length in (5, 7)]
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    before, following = states_of(model).before_tokens(torch.cat(texts, 1), positions)
    logits = before @ states_of(model).head.T
    loss = torch.nn.functional.cross_entropy(logits, following, reduction="sum")
    apart: list[Tensor] = [model(input_ids=t, labels=t).loss * (t.shape[1] - 1) for t in texts]
    torch.testing.assert_close(loss, torch.stack(apart).sum())


@needs_hyperclovax
def test_logits_are_scaled_as_each_family_does() -> None:
    model = tiny("hyperclovax").build()
    assert logit_scale(model) == 1.0
    model.config.logits_scaling = 0.25
    assert logit_scale(model) == 0.25
    granite = transformers.GraniteConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, logits_scaling=4.0
    )
    assert logit_scale(transformers.GraniteForCausalLM(granite)) == 0.25


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_that_are_computed_again_give_the_same_gradients(family: str) -> None:
    tokens = torch.randint(1, 300, (2, 9))
    gradients, calls = [], []
    for again in (False, True):
        torch.manual_seed(0)
        model = tiny(family).build().train()
        if again:
            checkpointed(model)
        base: Any = model.base_model
        base.layers[0].mlp.register_forward_pre_hook(lambda *_, again=again: calls.append(again))
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, other)
    assert calls == [False, True, True]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
@pytest.mark.parametrize("lora_rank", [None, 2])
def test_a_folder_in_bfloat16_with_activations_computed_again(
    lora_rank: int | None, split: Split, tmp_path: Path
) -> None:
    """What is learnt of it stays float32 where it is low rank, and so are the scores."""
    if lora_rank is not None:
        pytest.importorskip("peft")
    first = config_of(split, tiny("llama"))
    model = saved_model.build(first)
    assert isinstance(model, LMRec)
    model.prepare(split)
    model.decoder.bfloat16()
    model.export(tmp_path / "folder")
    path = {"path": str(tmp_path / "folder"), "lora_rank": lora_rank, "dtype": "bfloat16"}
    decoder = {"_target_": "recsys.models.language.Pretrained", **path}
    config = config_of(split, decoder, checkpoint_activations=True)
    tuned = fit(saved_model.build(config), split, TRAINING, Protocol(ks=(3,)))
    assert isinstance(tuned, LMRec)
    learnt = {p.dtype for p in tuned.decoder.parameters() if p.requires_grad}
    assert learnt == {torch.float32 if lora_rank else torch.bfloat16}
    saved_model.save(tmp_path / "model", tuned, split, config, mask_history=False)
    with torch.no_grad():
        scores = tuned.score(split.test.history)
        assert scores.dtype == torch.float32
        assert scores.equal(
            saved_model.load(tmp_path, device="cpu").model.score(split.test.history)
        )


def test_a_folder_in_bfloat16_is_read_as_float32_unless_told(split: Split, tmp_path: Path) -> None:
    tiny("llama").build().bfloat16().save_pretrained(tmp_path)
    kinds = {p.dtype for p in Pretrained(str(tmp_path)).build().parameters()}
    assert kinds == {torch.float32}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"attention": Attention(num_kv_heads=1)}, "blocks of gpt_neox divide evenly"),
    ({"family": "llama", "attention": Attention(head_dim=8)}, "such heads is no mean"),
    (
        {"family": "llama", "attention": Attention(num_kv_heads=3), "semantic_start": False},
        "num_kv_heads=3 does not divide num_heads=2",
    ),
    ({"family": "hyperclovax", "dropout": 0.1}, "blocks of hyperclovax have none"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_options_that_a_family_has_not(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Decoder(**options)


def test_a_family_that_the_installed_transformers_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(decoders.CLASSES, "hyperclovax", "OfTheFuture")
    with pytest.raises(ConfigError, match=r"transformers \S+ does not know it; install a later"):
        Decoder("hyperclovax")


WRONG_ATTENTION = [
    {"num_kv_heads": 0},
    {"head_dim": 0},
    {"rotary_share": 0.0},
    {"rotary_share": 2.0},
]


@pytest.mark.parametrize("wrong", WRONG_ATTENTION)
def test_attention_out_of_its_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Attention(**wrong)
