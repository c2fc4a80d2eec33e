"""How many floating-point operations an artifact took, estimated from its manifest and those of what it was made from.

2 operations for each matrix weight and token of a forward pass (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), up to the
hook where the pass stops; 2 more for the way back through a frozen weight, 4 more for one that is trained. Logits count where a
label is. Left out: attention between tokens, norms and all else without a weight, padding, what is computed twice, optimisers.

What has no products of matrices takes 0; None says that it cannot be told.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playpen.config import PlaypenError
from playpen.matrix_weights import Matrices, Place, Weights, first_place, new_adapter, numbers, read_adapter, read_weights
from playpen.models import ModelFiles, model_files

Manifests = Mapping[str, dict[str, Any]]
"""Manifests by fingerprint, each with its `path`, as of `report_page.sources.read_lineage`."""
NO_MATRICES = ("random", "length", "column", "bm25", "dsir", "sae_coverage", "sae_similarity")
"""Rivals that multiply no matrices."""


class _Unknown(Exception):
    """An estimate needs what no manifest tells."""


@dataclass(frozen=True, eq=False)
class _Made:
    """An artifact among those that it was made from."""

    manifest: dict[str, Any]
    manifests: Manifests

    @property
    def path(self) -> Path:
        return Path(self.manifest["path"])

    def setting(self, *names: str) -> Any:
        """Return a value of the config."""
        return _walk(self.manifest["config"], names)

    def number(self, *names: str) -> float:
        """Return a metric: a number, or the sum of a mapping of numbers."""
        found = _walk(self.manifest.get("metrics", {}), names)
        values = list(found.values()) if isinstance(found, dict) else [found]
        if not all(isinstance(value, int | float) for value in values):
            raise _Unknown
        return sum(values)

    def made_from(self, *names: str) -> "_Made":
        """Return the artifact that a setting names."""
        return self.other(self.setting(*names))

    def other(self, mark: str) -> "_Made":
        """Return the artifact of a fingerprint."""
        if mark not in self.manifests:
            raise _Unknown
        return _Made(self.manifests[mark], self.manifests)

    @property
    def files(self) -> ModelFiles:
        return model_files(self.path)

    @property
    def adapter(self) -> Matrices:
        return read_adapter(self.files.adapter)

    @property
    def sae(self) -> dict[str, Any]:
        return _read_sae(self.path)


def _walk(found: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if not isinstance(found, dict) or name not in found:
            raise _Unknown
        found = found[name]
    return found


def _read_sae(folder: Path) -> dict[str, Any]:
    """Read what a SAE artifact says of itself: hook, d_in, d_sae."""
    file = folder / "sae.json"
    if not file.exists():
        raise _Unknown
    return json.loads(file.read_text())


def estimate(manifest: dict[str, Any], manifests: Manifests) -> int | None:
    """Return the operations that an artifact took; 0 for none in matrices, None where it cannot be told.

    It cannot for stages that have no estimate, where an artifact that counts does not lie beside, and where an older version of a
    stage did not tell its tokens.
    """
    how = HOW.get(manifest["kind"])
    try:
        return None if how is None else round(how(_Made(manifest, manifests)))
    except (_Unknown, PlaypenError):  # the file of a base that lies elsewhere may be gone
        return None


def forward(weights: Weights, adapter: Matrices, tokens: float, labels: float, place: Place | None = None) -> float:
    """Return the operations of forward passes over `tokens` up to a place, or to the end with logits at `labels` of them."""
    return 2 * (weights.passed(place) + numbers(adapter, place)) * tokens + 2 * weights.head * labels


def step(weights: Weights, adapter: Matrices, tokens: float, labels: float) -> float:
    """Return the operations of forward and backward passes that train an adapter alone.

    Nothing goes back further than to the first adapted matrix, nor through those beside it that read the same.
    """
    back = weights.passed() - weights.passed(first_place(adapter))
    return (2 * weights.passed() + 2 * back + 6 * numbers(adapter)) * tokens + 4 * weights.head * labels


def row_gradients(adapter: Matrices, projection: int, whole: bool) -> int:
    """Return the operations a token by which each row gets the gradients of an adapter, apart from those that training sums up.

    With a projection to p x p numbers both sides of a gradient's outer product are projected first, unless Adam needs it whole.
    """
    if projection and not whole:
        return sum(2 * projection * (rows + columns + projection) for rows, columns in adapter.values())
    return 2 * numbers(adapter)


def sae_step(architecture: str, d_in: int, d_sae: int, k: int, dead: float) -> float:
    """Return the operations a token of a SAE's training step; see `sparse_sae`.

    Of TopK SAEs the encoder's forward pass alone is dense; decoding, the way back through it and both weights' gradients take k
    entries each, and the same again at half the width on `dead` features. JumpReLU SAEs are dense throughout,
    back to their input too, from which `b_dec` is taken.
    """
    if architecture == "jumprelu":
        return 12 * d_in * d_sae
    nested = 6 * k * d_in if architecture == "matryoshka" else 0
    auxiliary = 2 * d_in * dead + 8 * min(d_in / 2, dead) * d_in
    return 2 * d_in * d_sae + 8 * k * d_in + nested + auxiliary


def _pretrain(made: _Made) -> float:
    weights = read_weights(made.files.base)
    return 6 * (weights.passed() + weights.head) * made.number("tokens")


def _finetune(made: _Made) -> float:
    weights = read_weights(made.files.base)
    return made.setting("epochs") * step(weights, made.adapter, made.number("tokens"), made.number("labels"))


def _attribute(made: _Made) -> float:
    models = [made.made_from("model"), *map(made.other, made.setting("checkpoints"))]
    return sum(_attribute_by(made, model) for model in models)


def _attribute_by(made: _Made, model: _Made) -> float:
    weights, adapter, projection = read_weights(model.files.base), model.adapter, made.setting("projection_dim")
    split = made.setting("split")

    def passes(part: str) -> float:
        tokens, labels = made.number("tokens", part), made.number("labels", part)
        each = row_gradients(adapter, projection, made.setting("moments") != "none")
        return step(weights, adapter, tokens, labels) + each * tokens

    apart = made.setting("per_query") or made.setting("aggregation") == "nearest"
    size = projection**2 * len(adapter) or numbers(adapter)
    dots = 2 * size * made.number("rows") * (made.number("queries") if apart else 1)
    found = passes(split) + passes("query") + dots
    if made.setting("preconditioner") == "none":
        return found
    fitted = "query" if made.setting("preconditioner_rows") == "query" else split
    if made.setting("preconditioner") == "autocorrelation":
        return found + passes(fitted)
    tokens, labels = made.number("tokens", fitted), made.number("labels", fitted)
    return found + forward(weights, adapter, tokens, labels) + 2 * passes(fitted)


def _train_sae(made: _Made) -> float:
    from playpen.tables import read_table

    weights, base = read_weights(made.made_from("model").files.base), made.manifest["config"]
    found, deepest = 0.0, (-1, 4)
    for variant in ({}, *made.setting("variants")):
        folder = made.path / "variants" / variant["name"] if variant else made.path
        sae, chosen = _read_sae(folder), {**base, **{name: value for name, value in variant.items() if value is not None}}
        dead = sae["d_sae"] * float(read_table(folder, "history", ["dead_fraction"])["dead_fraction"].mean())
        learnt = sae_step(chosen["architecture"], sae["d_in"], sae["d_sae"], chosen["k"], dead) * made.number("tokens")
        found, deepest = found + learnt + _measured(made, weights, sae), max(deepest, weights.place(sae["hook"]))
    return found + forward(weights, {}, made.number("sources") + made.number("heldout_tokens"), 0, deepest)


def _measured(made: _Made, weights: Weights, sae: dict[str, Any]) -> float:
    """Return what measuring a SAE took: whole passes with and without it, two ablations once, and its own products."""
    times, whole = made.setting("evaluations") + 1, forward(weights, {}, made.number("ce_tokens"), made.number("ce_tokens"))
    own = 4 * sae["d_in"] * sae["d_sae"] * (made.number("heldout_tokens") + made.number("ce_tokens"))
    return (3 + 2 * times) * whole + times * own


def _encode(made: _Made) -> float:
    """Return what it took to run a base up to a SAE's hook, and the SAE over the tokens that count."""
    weights, sae = read_weights(made.made_from("model").files.base), made.made_from("sae").sae
    encoded = 2 * sae["d_in"] * sae["d_sae"] * made.number("pooled_tokens")
    return forward(weights, {}, made.number("tokens"), 0, weights.place(sae["hook"])) + encoded


def _features(made: _Made) -> float:
    weights, sae = read_weights(made.made_from("model").files.base), made.made_from("sae").sae
    encoded = 2 * sae["d_in"] * sae["d_sae"] * made.number("tokens")
    return forward(weights, {}, made.number("tokens"), 0, weights.place(sae["hook"])) + encoded


def _score(made: _Made) -> float:
    kind = made.setting("method", "kind")
    if kind in NO_MATRICES:
        return 0
    if kind == "minilm":
        from playpen.embedders import MINILM
        from playpen.offline import package_folder

        weights = read_weights(package_folder(MINILM, made.setting("method", "version")) / "model")
        return forward(weights, {}, made.number("tokens"), 0)
    model = made.made_from("method", "model")
    weights, adapter = read_weights(model.files.base), model.adapter
    if kind in ("perplexity", "ifd"):
        return forward(weights, adapter, made.number("tokens"), made.number("labels"))
    return forward(weights, adapter, made.number("tokens"), 0, weights.place(made.setting("method", "hook")))


def _trained(made: _Made, settings: _Made) -> float:
    """Return what many trainings took, each with its look at the targets; `settings` says how they were trained."""
    weights = read_weights(made.made_from("model").files.base)
    start = None if settings.setting("init") is None else settings.made_from("init")
    adapter = start.adapter if start else new_adapter(weights, settings.setting("rank"), settings.setting("target_modules"))
    tokens, labels = ({part: made.number(what, part) for part in ("trained", "measured")} for what in ("tokens", "labels"))
    return step(weights, adapter, tokens["trained"], labels["trained"]) + forward(
        weights, adapter, tokens["measured"], labels["measured"]
    )


def _evaluate(made: _Made) -> float:
    found = 0.0
    for name in made.setting("models"):
        model = made.made_from("models", name)
        weights, tokens, labels = read_weights(model.files.base), made.number("tokens", name), made.number("labels", name)
        found += forward(weights, model.adapter, tokens, labels)
    return found


HOW: dict[str, Callable[[_Made], float]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "attribute": _attribute,
    "train-sae": _train_sae,
    "fingerprint": _encode,
    "predict": _encode,
    "features": _features,
    "score": _score,
    "retrain": lambda made: _trained(made, made),
    "compare": lambda made: _trained(made, made.made_from("plan")),
    "evaluate": _evaluate,
}
"""How the operations of each kind of artifact are estimated."""
