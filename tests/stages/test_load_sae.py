"""A loaded SAE computes what its own files say; what does not fit or is broken ends in one line."""

import json
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors.torch import save_file

from playpen.config import PlaypenError
from playpen.machine import Machine
from playpen.models import model_files
from playpen.saes import encode_sparse, open_sae, read_info
from playpen.stages import load_sae

CPU = Machine(device="cpu")
HOOK = "model.layers.1.output"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.tiny_base(tmp_path_factory.mktemp("load_sae") / "base")


def gemmascope(d_in=32, d_sae=80):
    draw = torch.Generator().manual_seed(0)
    shapes = {"w_enc": (d_in, d_sae), "w_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    weights = {key: torch.randn(shape, generator=draw) for key, shape in shapes.items()}
    return {**weights, "threshold": torch.rand(d_sae, generator=draw) * 8}


def write(path, weights, config=None):
    path.mkdir(parents=True)
    save_file(weights, path / "params.safetensors")
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return path


def load(base, path, out, hook=HOOK):
    out.mkdir()
    load_sae.run(load_sae.Config(source={"path": str(path), "kind": "directory"}, model=str(base), hook=hook), out, CPU)
    return out


def test_gemmascope_activations_equal_jumprelu_by_hand(base, tmp_path):
    weights = gemmascope()
    out = load(base, write(tmp_path / "scope", weights), tmp_path / "out")
    sae, x = open_sae(out, CPU), torch.randn((50, 32), generator=torch.Generator().manual_seed(1)) * 3
    before = x @ weights["w_enc"] + weights["b_enc"]
    expected = torch.where(before > weights["threshold"], before, 0).relu()
    assert 0 < (expected > 0).float().mean() < 0.5
    torch.testing.assert_close(sae.encode(x), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sae.decode(expected), expected @ weights["w_dec"] + weights["b_dec"], rtol=1e-5, atol=1e-3)
    assert read_info(out).__dict__ == {
        "hook": HOOK,
        "model_id": model_files(base).base_id,
        "d_in": 32,
        "d_sae": 80,
        "architecture": "jumprelu",
        "scale": 1.0,
    }


def test_sparse_entries_are_the_dense_encoding(base, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("playpen.saes").saes.CHUNK_ENTRIES, "cpu", 80 * 7)  # pieces of seven tokens
    sae = open_sae(load(base, write(tmp_path / "scope", gemmascope()), tmp_path / "out"), CPU)
    x = torch.randn((50, 32), generator=torch.Generator().manual_seed(1)) * 3
    token, feature, strength = encode_sparse(sae, x)
    dense = torch.zeros(50, 80)
    dense[token, feature] = strength
    torch.testing.assert_close(dense, sae.encode(x), rtol=1e-5, atol=1e-5)
    assert (strength != 0).all()


def test_the_hook_comes_from_config_json_or_the_folders_name(base, tmp_path):
    named = write(tmp_path / "scope", gemmascope(), {"hf_hook_point_in": "model.layers.0.mlp.output"})
    assert read_info(load(base, named, tmp_path / "a", hook=None)).hook == "model.layers.0.mlp.output"
    foldered = write(tmp_path / "attn_out" / "layer_1_width_80_l0_small", gemmascope())
    assert read_info(load(base, foldered, tmp_path / "b", hook=None)).hook == "model.layers.1.self_attn.o_proj.input"
    silent = write(tmp_path / "x" / "y", gemmascope())
    with pytest.raises(PlaypenError, match="names no hook; say where"):
        load(base, silent, tmp_path / "c", hook=None)


def test_a_saelens_directory_is_the_same_sae_afterwards(base, tmp_path):
    from sae_lens import SAE, TopKSAE, TopKSAEConfig

    given = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4))
    given.cfg.metadata.hook_name = "model.layers.0"
    given.save_model(tmp_path / "given")
    out = load(base, tmp_path / "given", tmp_path / "out", hook=None)
    x = torch.randn((20, 32), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(SAE.load_from_disk(out / "sae").encode(x), given.encode(x), rtol=0, atol=0)
    assert read_info(out).hook == "model.layers.0"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("blocks.1.hook_resid_post", "model.layers.1.output"),
        ("blocks.0.hook_mlp_out", "model.layers.0.post_feedforward_layernorm.output"),
    ],
)
def test_a_name_of_transformerlens_becomes_the_module_that_it_stands_for(base, tmp_path, name, module):
    from sae_lens import SAE, TopKSAE, TopKSAEConfig

    given = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4))
    given.cfg.metadata.hook_name = name
    given.save_model(tmp_path / "given")
    out = load(base, tmp_path / "given", tmp_path / "out", hook=None)
    assert read_info(out).hook == module
    assert SAE.load_from_disk(out / "sae").cfg.metadata.hf_hook_name == module


def test_a_name_that_stands_for_no_place_of_the_model_is_one_line(base, tmp_path):
    from sae_lens import TopKSAE, TopKSAEConfig

    given = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4))
    given.cfg.metadata.hook_name = "blocks.9.hook_resid_post"
    given.save_model(tmp_path / "given")
    with pytest.raises(
        PlaypenError, match=r"a place that is not in the model \(hook .*\); say where in the model it reads with hook"
    ):
        load(base, tmp_path / "given", tmp_path / "out", hook=None)


def test_unfolded_normalisation_is_refused(base, tmp_path):
    from sae_lens import TopKSAE, TopKSAEConfig

    TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4, normalize_activations="expected_average_only_in")).save_model(
        tmp_path / "given"
    )
    with pytest.raises(PlaypenError, match="before its normalisation"):
        load(base, tmp_path / "given", tmp_path / "out")


def test_a_width_that_does_not_fit_the_hook_is_one_line(base, tmp_path):
    with pytest.raises(PlaypenError, match=r"width 48, but those at 'model\.layers\.1\.output' are 32 wide") as caught:
        load(base, write(tmp_path / "scope", gemmascope(d_in=48)), tmp_path / "out")
    assert "\n" not in str(caught.value)


def broken_files(path):
    """Yield (name, directory, what the error must say) of every kind of broken directory."""
    weights = gemmascope()
    yield "empty", path / "empty", "lacks cfg.json and sae_weights.safetensors"
    yield "keys", write(path / "keys", {k: v for k, v in weights.items() if k != "threshold"}), "missing threshold"
    yield "transcoder", write(path / "trans", {**weights, "affine_skip_connection": torch.ones(2)}), "affine_skip_connection"
    yield "shape", write(path / "shape", {**weights, "b_enc": torch.ones(3)}), r"b_enc has shape \(3,\), expected \(80,\)"
    yield "nan", write(path / "nan", {**weights, "b_dec": torch.full((32,), float("nan"))}), "b_dec holds infinite or NaN"
    cut = write(path / "cut", weights) / "params.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    yield "truncated", cut.parent, "truncated or no safetensors file"
    half = path / "half"
    half.mkdir()
    (half / "cfg.json").write_text('{"architecture": "nothing known", "d_in": 32, "d_sae": 4, "dtype": "float32"}')
    save_file(weights, half / "sae_weights.safetensors")
    yield "architecture", half, "not an inference SAE that SAELens can open"


def test_broken_directories_are_one_line_each(base, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, path, message in broken_files(tmp_path):
        with pytest.raises(PlaypenError, match=message) as caught:
            load(base, path, tmp_path / f"out-{name}")
        assert "\n" not in str(caught.value), name


def test_a_hub_folder_is_read_like_a_directory(base, tmp_path, monkeypatch):
    """The download is the one thing that cannot run here; what surrounds it does."""
    asked = SimpleNamespace()

    def snapshot(repository, revision, local_dir, allow_patterns):
        asked.call = (repository, revision, allow_patterns)
        write(local_dir / "resid_post" / "layer_1_width_80", gemmascope())

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    out, commit = tmp_path / "out", "a" * 40
    out.mkdir()
    source = {"kind": "hub", "repository": f"google/scope@{commit}", "folder": "resid_post/layer_1_width_80"}
    load_sae.run(load_sae.Config(source=source, model=str(base)), out, CPU)
    assert asked.call[:2] == ("google/scope", commit)
    assert read_info(out).hook == "model.layers.1.output"
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "sae", "sae.json"]


def test_an_unknown_release_is_one_line(base, tmp_path):
    source = {"kind": "release", "release": "no-such-release", "id": "x"}
    with pytest.raises(PlaypenError, match="could not open release 'no-such-release'"):
        load_sae.run(load_sae.Config(source=source, model=str(base)), tmp_path, CPU)
