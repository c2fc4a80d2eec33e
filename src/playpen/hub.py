"""References to a model hub: `owner/name` or `owner/name@revision`, pinned to a commit before anything is made."""

import re
from functools import cache
from typing import Literal

from playpen.config import PlaypenError


def split_reference(reference: str) -> tuple[str, str]:
    """Return (repository, revision) of a reference; the revision is `main` when left out."""
    repository, _, revision = reference.partition("@")
    return repository, revision or "main"


@cache
def pin(reference: str, kind: Literal["model", "dataset"]) -> str:
    """Return `repository@commit`: what a name stands for now, asked of the hub, or of its local cache when offline."""
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import HfHubHTTPError

    repository, revision = split_reference(reference)
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return reference
    if HF_HUB_OFFLINE:
        return f"{repository}@{_cached_commit(repository, revision, kind)}"
    try:
        info = HfApi().repo_info(repository, revision=revision, repo_type=kind, timeout=20)
    except (OSError, HfHubHTTPError, httpx.HTTPError, ValueError) as error:
        why = str(error).strip().split("\n")[0][:160]
        raise PlaypenError(
            f"the hub's {kind} {repository} could not be resolved at '{revision}' ({why}); name a commit, as {repository}@<40 hex digits>, or a local path"
        ) from None
    return f"{repository}@{info.sha}"


def _cached_commit(repository: str, revision: str, kind: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    file = f"{HF_HUB_CACHE}/{kind}s--{repository.replace('/', '--')}/refs/{revision}"
    try:
        with open(file) as handle:
            return handle.read().strip()
    except OSError:
        raise PlaypenError(
            f"the hub is switched off and its cache knows no '{revision}' of the {kind} {repository}; name a commit or a local path"
        ) from None
