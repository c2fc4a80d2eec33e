"""Identity, sealing and verification of artifacts."""

import json

import pytest
import tiny

from playpen import artifact
from playpen.config import PlaypenError
from playpen.tables import write_json

GOLDEN = {"seed": 0, "lr": 0.0003, "layers": [1, 2], "method": {"kind": "top_k", "k": None}, "name": "größer"}


def make(path, **config):
    def fill(out):
        write_json(out / "metrics.json", {"loss": 1.5})
        (out / "deep").mkdir()
        (out / "deep" / "weights.bin").write_bytes(b"weights")

    return tiny.write_artifact(path, "finetune", fill, config)


def test_the_fingerprint_of_a_fixed_config_never_changes():
    assert artifact.fingerprint("finetune", 1, GOLDEN) == "43211cfa"


@pytest.mark.parametrize(
    ("kind", "version", "config"),
    [("attribute", 1, GOLDEN), ("finetune", 2, GOLDEN), ("finetune", 1, {**GOLDEN, "seed": 1})],
)
def test_kind_version_and_every_field_count(kind, version, config):
    assert artifact.fingerprint(kind, version, config) != artifact.fingerprint("finetune", 1, GOLDEN)


def test_the_order_of_fields_does_not_count():
    assert artifact.fingerprint("a", 1, dict(reversed(GOLDEN.items()))) == artifact.fingerprint("a", 1, GOLDEN)


def test_a_file_is_known_by_its_content_and_read_again_after_a_change(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("same")
    two.write_text("same")
    before = artifact.digest(str(one))
    assert before == artifact.digest(str(two))
    one.write_text("changed")
    assert artifact.digest(str(one)) != before


def test_a_directory_is_known_by_its_relative_paths_and_contents(tmp_path):
    for name in ("left", "right"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("same")
    before = artifact.digest(str(tmp_path / "left"))
    assert before == artifact.digest(str(tmp_path / "right"))
    (tmp_path / "left" / "sub" / "file").rename(tmp_path / "left" / "sub" / "other")
    assert artifact.digest(str(tmp_path / "left")) != before


def test_a_mistyped_artifact_is_told_with_the_nearest_there_is(tmp_path):
    make(tmp_path / "classifier-1a2b3c4d")
    write_json(tmp_path / "manifest.json", {"entries": {"classifier": "classifier-1a2b3c4d", "base": "base-00000000"}})
    with pytest.raises(PlaypenError, match=r"classifer is not an artifact: nothing is there; did you mean \S*/classifier\?$"):
        artifact.find_artifact(str(tmp_path / "classifer"))
    with pytest.raises(PlaypenError, match=r"xyz is not an artifact: nothing is there$"):
        artifact.find_artifact(str(tmp_path / "xyz"))
    with pytest.raises(
        PlaypenError, match=r"base-00000000 is not an artifact: nothing is there$"
    ):  # named by a plan, not made yet
        artifact.find_artifact(str(tmp_path / "base"))


def test_a_path_that_is_not_there_is_told(tmp_path):
    with pytest.raises(PlaypenError, match=r"there is no file or directory at .*nowhere"):
        artifact.digest(str(tmp_path / "nowhere"))


def test_a_sealed_artifact_lists_its_files_and_metrics_and_leaves_no_part(tmp_path):
    manifest = artifact.read_manifest(make(tmp_path / "a", seed=1))
    assert sorted(manifest["files"]) == ["deep/weights.bin", "metrics.json"]
    assert manifest["files"]["deep/weights.bin"][0] == len(b"weights")
    assert manifest["metrics"] == {"loss": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: (a / "deep" / "weights.bin").write_bytes(b"Weights"), ["deep/weights.bin: changed"]),
        (lambda a: (a / "metrics.json").unlink(), ["metrics.json: missing"]),
        (lambda a: (a / "new").write_text(""), ["new: not in the manifest"]),
        (lambda a: (a / "deep" / "manifest.json").write_text("{}"), ["deep/manifest.json: not in the manifest"]),
        (lambda a: None, []),
    ],
)
def test_verify_names_each_file_that_is_not_as_it_was_made(tmp_path, change, told):
    path = make(tmp_path / "a")
    change(path)
    assert artifact.verify(path) == told


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a / "manifest.json").unlink(), "is not an artifact: it has no manifest.json"),
        (lambda a: a.rename(a.with_name("a.part")), "is unfinished"),
        (lambda a: (a / "manifest.json").write_text("{"), "is not readable JSON"),
        (lambda a: (a / "manifest.json").write_text('{"format": 99}'), "is not the manifest of an artifact"),
    ],
)
def test_what_is_not_a_finished_artifact_is_told_as_what_it_is(tmp_path, spoil, message):
    path = make(tmp_path / "a")
    spoil(path)
    with pytest.raises(PlaypenError, match=message):
        artifact.read_manifest(path)


def test_an_artifact_is_found_by_its_path_or_by_its_name_in_the_plan_that_made_it(tmp_path):
    path = make(tmp_path / "scores-1a2b3c4d")
    (tmp_path / "manifest.json").write_text(json.dumps({"entries": {"scores": "scores-1a2b3c4d"}}))
    assert artifact.find_artifact(str(path)) == artifact.find_artifact(str(tmp_path / "scores")) == path
    with pytest.raises(PlaypenError, match="is not an artifact"):
        artifact.find_artifact(str(tmp_path / "score"))


def test_differences_are_one_line_a_field():
    before = {"kind": "finetune", "version": 1, "config": {"lr": 0.0003, "lora": {"r": 16, "alpha": 32}, "keep": "1a2b3c4d"}}
    after = {"kind": "finetune", "version": 1, "config": {"lr": 0.0001, "lora": {"r": 8, "alpha": 32}, "seed": 1}}
    assert artifact.differences(before, after) == [
        "lr: 0.0003 -> 0.0001",
        "lora.r: 16 -> 8",
        "keep: 1a2b3c4d -> (unset)",
        "seed: (unset) -> 1",
    ]


def test_a_command_is_told_so_that_a_shell_reads_it_back(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/opt/bin/playpen", "run", "demo", "--set", "data.note=two words"])
    assert artifact.command_line() == "playpen run demo --set 'data.note=two words'"
