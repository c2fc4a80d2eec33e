"""Matrix weights of a model, from the headers of its files: which are there, and which of them a forward pass meets before a hook.

No tensor is loaded. An embedding is looked up, not multiplied with, so it counts nothing; the unembedding counts, tied to it or
not. Weights of one dimension (norms, biases) are left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

from playpen.config import PlaypenError

Matrices = Mapping[tuple[int, str], tuple[int, int]]
"""Shapes by layer, from 0, and by the module's path in it, as (2, "mlp.down_proj")."""

Place = tuple[int, int]
"""How far a forward pass has come: a layer, and what of it is done, 0 (nothing) to 4 (all)."""

NAME = re.compile(r"(.*?)\.(\d+)\.(.+?)(?:\.weight)?")
HOOK = re.compile(r"(.+?)\.(\d+)(%?)(?:\.(.+))?")
QKV, UP = (
    r"(q_proj|k_proj|v_proj|qkv_proj|c_attn|query_key_value)",
    r"(gate_proj|up_proj|gate_up_proj|fc1|fc_in|c_fc|dense_h_to_4h)",
)
PARTS = (
    rf"input|hook_resid_pre|(ln_1|input_layernorm|self_attn_layer_norm).*|(self_)?att(n|ention)(\.attention)?\.input|.*{QKV}\.input",
    rf".*({QKV}|q_norm|k_norm)|.*(o_proj|out_proj|attn\.c_proj|attention\.dense)\.input|attn\.hook_.*",
    rf".*att(n|ention).*|ln_2.*|pre_feedforward.*|hook_resid_mid|hook_attn_out|mlp\.input|.*{UP}\.input",
    rf".*{UP}|.*act(_fn)?(\.input)?|.*(down_proj|c_proj|fc2|fc_out|dense_4h_to_h)\.input|mlp\.hook_.*",
    r".*",
)
"""What a layer has done, by what its places are called: nothing; queries, keys and values; attention; the MLP's way up; all."""
HEADS = (r"lm_head|embed_out", r"embed_tokens|embed_in|wte|word_embeddings")
"""What the unembedding is called or, where it is tied, the embedding."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The matrices of a base model."""

    layers: Matrices
    head: int
    """Numbers in the unembedding."""

    @property
    def depth(self) -> int:
        """The number of layers."""
        return 1 + max(layer for layer, _ in self.layers)

    def place(self, hook: str) -> Place:
        """Return how far a forward pass has come at a hook; a share in place of a layer's number is that depth, rounded down."""
        found = HOOK.fullmatch(hook)
        if found is None:
            before = "embed" in hook and not re.match(HEADS[0], hook)
            return (-1, 4) if before else (self.depth, 4 if re.fullmatch(rf"({HEADS[0]})(\.output)?", hook) else 0)
        number = int(found[2]) if not found[3] else min(self.depth - 1, int(found[2]) * self.depth // 100)
        return number, part((found[4] or "").removesuffix("output").removesuffix("."))

    def passed(self, place: Place | None = None) -> int:
        """Return the numbers in all matrices that a pass has met at a place; without one, in all layers but not the head."""
        everything = place is not None and place > (self.depth, 0)
        return numbers(self.layers, place) + (self.head if everything else 0)


def part(path: str) -> int:
    """Return what a layer has done, 0 to 4, at a path in it: behind a module or, with `.input` at its end, before it."""
    module = path.partition(".lora_")[0]
    return next(i for i, pattern in enumerate(PARTS) if re.fullmatch(pattern, module)) if module else len(PARTS) - 1


def numbers(matrices: Matrices, place: Place | None = None) -> int:
    """Return how many numbers the matrices have, those behind a place left out."""
    return sum(prod(shape) for (layer, path), shape in matrices.items() if place is None or (layer, part(path)) <= place)


def first_place(matrices: Matrices) -> Place:
    """Return how far a forward pass has come behind the first of some matrices."""
    return min(((layer, part(path)) for layer, path in matrices), default=(-1, 4))


@cache
def read_weights(folder: Path) -> Weights:
    """Read the matrices of a base model in transformers' format.

    Raises PlaypenError where it has none or no unembedding, and for mixtures of experts, of which a token meets only some.
    """
    shapes = _shapes(folder)
    if any("experts" in name for name in shapes):
        raise PlaypenError(f"{folder} holds a mixture of experts; what a token costs is known of dense models only")
    layers = _in_layers(shapes)
    outside = {name: shape for name, shape in shapes.items() if not NAME.fullmatch(name)}
    heads = [prod(shape) for pattern in HEADS for name, shape in outside.items() if re.search(pattern, name)]
    if not layers or not heads:
        raise PlaypenError(
            f"{folder} holds no {'unembedding' if layers else 'layer'} in safetensors files that is known by its name"
        )
    return Weights(layers, heads[0])


def read_adapter(folder: Path | None) -> Matrices:
    """Read the LoRA matrices of an adapter, `.lora_A` [rank, in] and `.lora_B` [out, rank]; none without a folder."""
    found = {} if folder is None else _in_layers(_shapes(folder))
    return {key: shape for key, shape in found.items() if "lora_" in key[1]}


def new_adapter(weights: Weights, rank: int, modules: Sequence[str]) -> Matrices:
    """Return the LoRA matrices of an adapter of a rank on the modules of some names."""
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for (layer, path), (rows, columns) in weights.layers.items():
        if path.rsplit(".", 1)[-1] in modules:
            found |= {(layer, f"{path}.lora_A"): (rank, columns), (layer, f"{path}.lora_B"): (rows, rank)}
    return found


def _in_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[tuple[int, str], tuple[int, int]]:
    """Return the matrices of the longest list of layers: a model that also sees has another one."""
    lists: dict[str, dict[tuple[int, str], tuple[int, int]]] = {}
    for name, shape in shapes.items():
        found = NAME.fullmatch(name)
        if found and len(shape) == 2:
            lists.setdefault(found[1], {})[(int(found[2]), found[3])] = (shape[0], shape[1])
    return max(lists.values(), key=lambda layers: sum(map(prod, layers.values())), default={})


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return found
