"""Names on a model hub become commits, or an error that says what to write instead."""

import pytest
from huggingface_hub import constants

from playpen import hub
from playpen.config import PlaypenError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    hub.pin.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_reference_with_a_commit_is_pinned_already(offline):
    assert hub.pin(f"owner/name@{COMMIT}", "model") == f"owner/name@{COMMIT}"


@pytest.mark.parametrize(("reference", "revision"), [("owner/name", "main"), ("owner/name@v2", "v2")])
def test_offline_a_name_stands_for_what_the_cache_knows(offline, reference, revision):
    file = offline / "datasets--owner--name" / "refs" / revision
    file.parent.mkdir(parents=True)
    file.write_text(COMMIT + "\n")
    assert hub.pin(reference, "dataset") == f"owner/name@{COMMIT}"


def test_offline_an_unknown_name_is_told_with_the_remedy(offline):
    with pytest.raises(PlaypenError, match="its cache knows no 'main' of the model owner/name; name a commit or a local path"):
        hub.pin("owner/name", "model")


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch):
    from huggingface_hub import HfApi

    def unreachable(*args, **kwargs):
        raise OSError("no route to host\nand more")

    hub.pin.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "repo_info", unreachable)
    with pytest.raises(PlaypenError, match=r"model owner/name could not be resolved at 'main' \(no route to host\)") as caught:
        hub.pin("owner/name", "model")
    assert "\n" not in str(caught.value)
