"""The model card of a trained SAE: what it is, how it was made, how good it is and how to open it."""

from pathlib import Path
from typing import Any

CARD = """# {{ architecture }} SAE, {{ d_in }} to {{ d_sae }}, at `{{ hook }}`

A sparse autoencoder of {{ d_sae }} features for the activations at `{{ hook }}` of base model {{ base }}, trained with playpen by
SAELens' classes on {{ "{:,}".format(tokens) }} tokens.

```python
from sae_lens import SAE

sae = SAE.load_from_disk("DIRECTORY")   # takes the raw activations, in float32
features = sae.encode(activations)      # [tokens, {{ d_sae }}]
```

## Quality, on {{ "{:,}".format(heldout_tokens) }} held-out tokens

| measure | value |
|---|---:|
{% for name, value in measures %}| {{ name }} | {{ value }} |
{% endfor %}

Explained variance is about the mean of the held-out activations. The CE-loss score compares the model's loss with the
rebuilt activations to that with an ablation: 1 is as good as the model itself.

## Training data

| source | tokens that entered the buffer |
|---|---:|
{% for name, tokens in sources %}| {{ name }} | {{ "{:,}".format(tokens) }} |
{% endfor %}
"""

MEASURES = (
    ("explained_variance", "explained variance", "{:.4f}"),
    ("l0", "active features a token (L0)", "{:.1f}"),
    ("ce_score_zero", "CE-loss score, zero ablation", "{:.4f}"),
    ("ce_score_mean", "CE-loss score, mean ablation", "{:.4f}"),
    ("kl_sae", "KL from the model, nats a token", "{:.4f}"),
    ("dead_fraction", "dead features", "{:.2%}"),
    ("dense_fraction", "dense features (on over 10 % of tokens)", "{:.2%}"),
)


def write_card(folder: Path, info: Any, base: str, metrics: dict[str, Any]) -> None:
    """Write `README.md` beside the weights, with the metadata that the hub reads.

    Args:
        info: the SAE's `SaeInfo`.
        base: name of the base model.
        metrics: its `metrics.json`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(library_name="saelens", tags=["sparse-autoencoder", "saelens", "playpen"])
    card = ModelCard.from_template(
        data,
        template_str="---\n{{ card_data }}\n---\n\n" + CARD,
        architecture=info.architecture,
        d_in=info.d_in,
        d_sae=info.d_sae,
        hook=info.hook,
        base=base,
        tokens=metrics["tokens"],
        heldout_tokens=metrics["heldout_tokens"],
        measures=[(name, form.format(metrics[key])) for key, name, form in MEASURES if key in metrics],
        sources=list(metrics["sources"].items()),
    )
    (folder / "README.md").write_text(str(card), encoding="utf-8")
