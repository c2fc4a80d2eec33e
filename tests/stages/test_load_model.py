"""The stage load-model: weights, tokenizer and chat template come together or are refused in one line."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import load_base, load_tokenizer, model_files
from playpen.stages import load_model
from playpen.stages.load_model import Config, Directory

CPU = Machine(device="cpu")
CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes."}]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory of transformers, with its tokenizer."""
    files = model_files(tiny.tiny_base(tmp_path / "base"))
    shutil.copytree(files.base, tmp_path / "mine")
    if files.tokenizer != files.base:
        shutil.copytree(files.tokenizer, tmp_path / "mine", dirs_exist_ok=True)
    return tmp_path / "mine"


def load(out: Path, **fields: object) -> Path:
    return tiny.write_artifact(out, "load-model", lambda part: load_model.run(Config(**fields), part, CPU))


def test_a_directory_is_referred_to_and_gives_the_same_weights(directory: Path, tmp_path: Path) -> None:
    made = load(tmp_path / "loaded", source=Directory(path=str(directory)))
    assert not (made / "model").exists()
    one, two = load_base(made, CPU).state_dict(), load_base(tmp_path / "base", CPU).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_another_tokenizers_template_or_a_file_takes_the_place_of_the_own(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}")
    made = load(tmp_path / "filed", source=Directory(path=str(directory)), template_file=str(tmp_path / "plain.jinja"))
    assert load_tokenizer(made).apply_chat_template(CHAT, tokenize=False) == "[user] Hello\n[assistant] Yes.\n"
    bare = tmp_path / "bare"
    shutil.copytree(directory, bare, ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
    made = load(tmp_path / "borrowed", source=Directory(path=str(bare)), tokenizer=Directory(path=str(directory)))
    assert "<start_of_turn>model" in load_tokenizer(made).apply_chat_template(CHAT, tokenize=False)


@pytest.mark.parametrize("mistake", ["no weights", "no tokenizer", "no template", "vocabulary"])
def test_what_does_not_belong_together_is_one_line(directory: Path, tmp_path: Path, mistake: str) -> None:
    message = {
        "no weights": "no config.json",
        "no tokenizer": "no tokenizer lies in",
        "no template": "has no chat template",
    }.get(mistake, "do not belong")
    if mistake == "no weights":
        (directory / "config.json").unlink()
    elif mistake == "no tokenizer":
        for file in (*directory.glob("tokenizer*"), *directory.glob("special*")):
            file.unlink()
    elif mistake == "no template":
        (directory / "chat_template.jinja").unlink()
    else:
        tokenizer = load_tokenizer(tmp_path / "base")
        tokenizer.add_tokens([f"word{i}" for i in range(500)])
        tokenizer.save_pretrained(directory)
    with pytest.raises(PlaypenError, match=message):
        load(tmp_path / "loaded", source=Directory(path=str(directory)))


def test_a_missing_directory_is_found_when_the_plan_is_made() -> None:
    from playpen.stage import make_plan

    with pytest.raises(PlaypenError, match="entry 'base': there is no file or directory at /nowhere/model"):
        make_plan({"base": {"kind": "load-model", "source": {"kind": "directory", "path": "/nowhere/model"}}})
