"""Train a small Gemma-3-architecture base model and its tokenizer from scratch on a corpus.

    playpen pretrain --corpus runs/demo/world --root runs/mine

It serves the embedded demo, where no model can be downloaded: the real architecture (RMSNorm, gated MLP, QK norm, rotary
positions; Gemma Team 2025, arXiv 2503.19786, section 2), at a size that two cores train in two minutes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from playpen.chat import GEMMA_TEMPLATE
from playpen.config import Input, PlaypenError, config
from playpen.tables import read_table, write_json

if TYPE_CHECKING:
    import numpy as np

    from playpen.machine import Machine

VERSION = 1
RESUMABLE = True
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
"""Special tokens, in Gemma's order."""


@config
class Config:
    """Train a small base model and its tokenizer from scratch."""

    corpus: Input
    """Artifact with a `corpus` table, one document a row in its column `text`."""
    vocabulary: PositiveInt = 2048
    """Entries of the byte-pair vocabulary, special tokens included."""
    hidden: PositiveInt = 128
    """Width of the residual stream; a multiple of `heads`."""
    layers: PositiveInt = 4
    """Transformer blocks."""
    heads: PositiveInt = 4
    """Query heads; they share one key and value head, as in Gemma-3-270m."""
    intermediate: PositiveInt = 384
    """Width of the gated MLP."""
    turns: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the documents told in turns, their first half by the user: so the base knows the turn tokens, as bases do."""
    context: PositiveInt = 128
    """Tokens in a training block."""
    positions: PositiveInt = 1024
    """Longest input the model accepts, in tokens."""
    tokens: PositiveInt = 1_500_000
    """Training tokens; the corpus is repeated, reshuffled, when it is shorter."""
    batch_blocks: PositiveInt = 16
    """Blocks in one optimiser step."""
    lr: PositiveFloat = 3e-3
    """Peak learning rate, after 5% warm-up, then cosine."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW."""
    seed: int = 0
    """Seed of the initial weights and of the order of blocks."""

    @model_validator(mode="after")
    def _check_shape(self) -> "Config":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        if self.vocabulary < 256 + len(SPECIAL):
            raise ValueError(f"vocabulary {self.vocabulary} cannot hold the 256 bytes and {len(SPECIAL)} special tokens")
        return self


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `model/` (weights and tokenizer), `history.parquet` and `metrics.json`."""
    from datasets import Dataset
    from transformers import TrainingArguments, set_seed

    from playpen.epoch_order import OrderedTrainer
    from playpen.models import write_model_files
    from playpen.training import remove_checkpoints, train, trainer_arguments

    texts = read_table(config.corpus, "corpus", ["text"])["text"].tolist()
    tokenizer = train_tokenizer(texts, config.vocabulary)
    blocks = pack(tell_in_turns(texts, config.turns, tokenizer, config.seed), tokenizer, config.context)
    if len(blocks) < config.batch_blocks:
        raise PlaypenError(
            f"the corpus of {config.corpus} fills {len(blocks)} blocks of {config.context} tokens; at least {config.batch_blocks} are needed"
        )
    steps = max(1, config.tokens // (config.batch_blocks * config.context))
    set_seed(config.seed)
    model = make_model(config, tokenizer)
    arguments = TrainingArguments(
        **trainer_arguments(out, machine, config.batch_blocks, config.seed, steps, "pretrain"),
        max_steps=steps,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        adam_beta2=0.95,
        warmup_steps=max(1, steps // 20),
        lr_scheduler_type="cosine",
    )
    rows = Dataset.from_dict({"input_ids": blocks, "labels": blocks}).with_format("torch")
    metrics: dict[str, Any] = train(OrderedTrainer(model=model, args=arguments, train_dataset=rows), config, out, machine)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    remove_checkpoints(out)
    write_model_files(out, out / "model", out / "model")
    used = steps * config.batch_blocks * config.context
    corpus = {"corpus_tokens": int(blocks.size), "tokens": used, "epochs": round(used / blocks.size, 3)}
    write_json(out / "metrics.json", {**metrics, **corpus, "parameters": model.num_parameters(), "vocabulary": len(tokenizer)})


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with Gemma's special tokens and turn format."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = GEMMA_TEMPLATE
    return tokenizer


def tell_in_turns(texts: list[str], share: float, tokenizer: Any, seed: int) -> list[str]:
    """Return the documents with BOS, a share of them as a user's turn and the model's, cut at the sentence nearest the middle."""
    import numpy as np

    chosen = np.random.default_rng(seed).random(len(texts)) < share
    told = []
    for text, in_turns in zip(texts, chosen, strict=True):
        ends = [i + 2 for i in range(len(text)) if text.startswith(". ", i)]
        if in_turns and ends:
            cut = min(ends, key=lambda end: abs(end - len(text) / 2))
            turns = [{"role": "user", "content": text[:cut]}, {"role": "assistant", "content": text[cut:]}]
            told.append(tokenizer.apply_chat_template(turns, tokenize=False))
        else:
            told.append(tokenizer.bos_token + text)
    return told


def pack(texts: list[str], tokenizer: Any, context: int) -> "np.ndarray":
    """Return all documents, an EOS after each, as blocks of shape [blocks, context]; the last tokens are left out."""
    import numpy as np

    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    stream = np.fromiter((token for ids in encoded for token in (*ids, tokenizer.eos_token_id)), dtype=np.int64)
    return stream[: len(stream) // context * context].reshape(-1, context)


def make_model(config: Config, tokenizer: Any) -> Any:
    """Return a Gemma 3 text model with random weights."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=1,
            head_dim=config.hidden // config.heads,
            query_pre_attn_scalar=config.hidden // config.heads,
            max_position_embeddings=config.positions,
            sliding_window=config.positions,
            layer_types=["full_attention"] * config.layers,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
