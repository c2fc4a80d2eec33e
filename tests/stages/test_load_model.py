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


def test_a_model_without_a_template_is_taken_for_plain_text_when_that_is_said(directory: Path, tmp_path: Path) -> None:
    made = load(tmp_path / "plain", source=Directory(path=str(directory)), template="none")
    assert load_tokenizer(made).chat_template is None


def test_a_hub_model_in_the_old_format_is_kept_as_safetensors(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download is the one thing that cannot run here; what surrounds it does. TinyStories-33M is such a model."""
    from transformers import AutoModelForCausalLM

    weights = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / "pytorch_model.bin")

    def snapshot(repository: str, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
        for pattern in allow_patterns:
            for file in directory.glob(pattern):
                shutil.copyfile(file, Path(local_dir, file.name)) if Path(local_dir).is_dir() else shutil.copytree(
                    directory, local_dir, ignore=shutil.ignore_patterns("*.bin")
                )

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    made = load(tmp_path / "loaded", source=load_model.Hub(id=f"owner/name@{'a' * 40}"))
    assert sorted(file.suffix for file in (made / "model").glob("*model*")) == [".safetensors"]
    one = load_base(made, CPU).state_dict()
    assert all(torch.equal(one[key], value) for key, value in weights.items())
