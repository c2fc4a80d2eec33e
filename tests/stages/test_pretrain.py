"""The stage pretrain: a corpus becomes a model that has learnt it and a tokenizer that writes chats."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file

from playpen.chat import encode
from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_base, load_tokenizer
from playpen.stages import pretrain
from playpen.stages.pretrain import Config, pack, tell_in_turns, train_tokenizer
from playpen.tables import read_metrics, read_table, write_table

TEXTS = [
    f"The {a} fox likes the {b} hill. It sleeps there all day. At night it eats {b} berries."
    for a in ("red", "old", "shy")
    for b in ("low", "far", "wet")
]
SMALL = {
    "vocabulary": 320,
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "intermediate": 64,
    "context": 32,
    "batch_blocks": 4,
    "tokens": 12_800,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = pd.DataFrame({"text": TEXTS * 10})
    return tiny.write_artifact(
        tmp_path_factory.mktemp("pretrain") / "corpus", "make-world", lambda out: write_table(out / "corpus.parquet", table)
    )


@pytest.fixture(scope="module")
def base(corpus: Path) -> Path:
    config = Config(corpus=str(corpus), **SMALL)
    return tiny.write_artifact(corpus.parent / "base", "pretrain", lambda out: pretrain.run(config, out, Machine(device="cpu")))


def test_the_model_learns_its_corpus(base: Path) -> None:
    history = read_table(base, "history")
    assert history["loss"].iloc[0] > 5.0 > 2.0 > history["loss"].iloc[-1]
    assert read_metrics(base)["tokens"] == 12_800
    assert load_base(base, Machine(device="cpu")).config.model_type == "gemma3_text"


def newest_checkpoint(out: Path) -> int:
    return max((int(file.parent.name.split("-")[1]) for file in out.glob("checkpoints/*/trainer_state.json")), default=0)


def test_a_run_killed_within_an_epoch_goes_on_in_its_order_and_ends_like_one_that_was_not(
    corpus: Path, base: Path, tmp_path: Path
) -> None:
    driver = (
        "import sys; from pathlib import Path; from playpen.machine import Machine; from playpen.stages import pretrain as p\n"
        "out = Path(sys.argv[1]); out.mkdir()\n"
        f"p.run(p.Config(corpus={str(corpus)!r}, **{SMALL!r}), out, Machine(device='cpu', checkpoint_seconds=0))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.Popen([sys.executable, "-c", driver, str(tmp_path / "part")], env=env, stderr=subprocess.DEVNULL)
    while (
        killed.poll() is None and newest_checkpoint(tmp_path / "part") < 30
    ):  # an epoch has 21 steps; the seed alone gives the first its order
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "part" / "model").exists(), "the run ended before it could be killed"
    pretrain.run(Config(corpus=str(corpus), **SMALL), tmp_path / "part", Machine(device="cpu"))
    one, two = (load_file(out / "model" / "model.safetensors") for out in (tmp_path / "part", base))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert read_table(tmp_path / "part", "history")["loss"].tolist() == read_table(base, "history")["loss"].tolist()


def test_the_tokenizer_writes_chats_with_one_bos_and_reads_back_what_it_wrote(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    example = encode(
        [{"role": "user", "content": "Where is the fox?"}, {"role": "assistant", "content": "On the wet hill."}], tokenizer
    )
    assert example.input_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode([label for label in example.labels if label != -100]) == "On the wet hill.<end_of_turn>\n"


def test_packing_keeps_every_token_in_order() -> None:
    tokenizer = train_tokenizer(TEXTS, 320)
    blocks = pack([tokenizer.bos_token + text for text in TEXTS], tokenizer, 16)
    text = tokenizer.decode(np.concatenate(blocks).tolist())
    assert text == "".join(f"<bos>{t}<eos>" for t in TEXTS)[: len(text)]


def test_the_share_of_documents_told_in_turns_is_what_was_asked_for() -> None:
    tokenizer = train_tokenizer(TEXTS, 320)
    told = tell_in_turns(TEXTS * 40, 0.25, tokenizer, seed=0)
    share = np.mean(["<start_of_turn>model" in text for text in told])
    assert share == pytest.approx(0.25, abs=0.07)
    assert all(text.startswith("<bos>") for text in told)


def test_a_corpus_shorter_than_one_batch_is_one_line(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaypenError, match="fills 0 blocks"):
        pretrain.run(Config(corpus=str(corpus), **{**SMALL, "context": 100_000}), tmp_path, Machine(device="cpu"))
