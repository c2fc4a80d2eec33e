"""A plan launched on SageMaker comes home as if it had been made here: real requests over loopback, and the job's own script run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import sagemaker_server
import tiny
import tyro
import yaml
from sagemaker_server import BUCKET, ENVIRONMENT, Amazon

from playpen import artifact, cli, hub
from playpen.cloud import watch
from playpen.cloud.account import open_account
from playpen.cloud.container import keep_whole
from playpen.cloud.launch import Away, base_name
from playpen.cloud.travel import check_arrival, pack
from playpen.cloud.wheel import HOME, write_requirements, write_wheel
from playpen.config import PlaypenError
from playpen.machine import Machine, SageMaker
from playpen.stage import make_plan
from playpen.tables import write_json, write_table

LAUNCH = [*("--machine.launcher", "sagemaker"), *("--machine.sagemaker.install", "nothing")]
WORLD = {"kind": "make-world", "num_documents": 20, "num_chats": 30, "query_items": 8, "test_items": 8, "num_prompts": 10}


@pytest.fixture(scope="module")
def _aws(tmp_path_factory):
    with sagemaker_server.amazon(tmp_path_factory.mktemp("aws")) as served:
        yield served


@pytest.fixture
def aws(_aws, configured, monkeypatch):
    """Serve S3, SageMaker and CloudWatch to this test; what an earlier one sent is forgotten."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", _aws.url)
    monkeypatch.setattr(_aws, "requests", [])
    monkeypatch.setattr(watch.time, "sleep", lambda seconds, sleep=watch.time.sleep: sleep(min(seconds, 0.1)))
    return _aws


@pytest.fixture
def configured(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Go to a directory with the artifact runs/data, of 12 rows without tokens."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"row_id": f"{i:016x}", "num_tokens": 9, "num_labels": 4, "source": "a", "messages": [], "input_ids": [], "labels": []}
        for i in range(12)
    ]
    table = pa.Table.from_pylist(rows, schema=tiny.DATA_SCHEMA)
    tiny.write_artifact(tmp_path / "runs" / "data", "build-data", lambda out: write_table(out / "pool.parquet", table))
    return tmp_path


def preset(home, **entries):
    (home / "mine.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
    return ["run", "mine.yaml", "--root", "runs"]


def select(k):
    return {"kind": "select", "data": "runs/data", "method": {"kind": "random", "k": k}}


def spec_of(command):
    return yaml.safe_load(Path(command[1]).read_text())


def content(path):
    """Return the hashes of an artifact's files, its manifest left out."""
    return artifact.read_manifest(path)["files"]


def fails(args, capsys):
    """Run a command that must end as a mistake; return what it says."""
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code == 2
    return capsys.readouterr().err


def interrupted_client(*_):
    raise KeyboardInterrupt


@pytest.mark.timeout(900)  # a container, and the SDK, on a machine that is busy
def test_a_launched_plan_comes_home_as_it_would_have_been_made_here_also_to_a_client_that_was_killed_meanwhile(
    aws: Amazon, home, capsys, monkeypatch
):
    command = preset(home, world=WORLD, picked=select(5))
    with monkeypatch.context() as killed:
        killed.setattr("playpen.cloud.launch.follow", interrupted_client)
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, *LAUNCH])
    assert ended.value.code == 130
    cli.main([*command, *LAUNCH])
    said = capsys.readouterr().out
    assert len(aws.requests) == 1, "the second command found the job of the first"
    assert "  | " in said, "the log is told"

    plan = make_plan(spec_of(command))
    away = [home / "runs" / entry.directory for entry in plan.values()]
    assert [artifact.verify(path) for path in away] == [[], []]
    shutil.copytree("runs/data", "here/runs/data")
    monkeypatch.chdir("here")
    cli.main(["run", "../mine.yaml", "--root", "runs"])
    assert [content(Path("runs") / path.name) for path in away] == [content(path) for path in away]
    monkeypatch.chdir(home)
    made = artifact.read_manifest(away[1])["provenance"]
    assert made["commit"] == artifact.commit()
    assert ENVIRONMENT["PLAYPEN_SAGEMAKER_ROLE"] not in json.dumps(made), "a manifest names nobody's account"
    capsys.readouterr()
    cli.main(["ls", "runs"])
    listed = capsys.readouterr().out
    assert all(path.name in listed for path in away)

    shutil.rmtree(away[0])
    cli.main([*command, *LAUNCH])
    assert len(aws.requests) == 1, "a job that has ended is not run again"
    assert artifact.verify(away[0]) == []


@pytest.mark.timeout(900)
def test_a_failed_job_says_why_and_what_it_finished_comes_home(aws: Amazon, home, capsys):
    command = preset(home, world=WORLD, picked=select(500))
    said = fails([*command, *LAUNCH], capsys)
    assert re.match(r"playpen: the job playpen-picked-[0-9a-f]{8}-\d+ ended as Failed: AlgorithmError: ", said)
    assert said.count("k is 500 but there are only 12 rows to choose from") >= 2, "the reason has it, and the log's last lines"
    assert "Traceback" not in said
    plan = make_plan(spec_of(command))
    assert artifact.verify(home / "runs" / plan["world"].directory) == []
    assert not (home / "runs" / plan["picked"].directory).exists()


@pytest.mark.slow
def test_an_interrupted_job_is_gone_on_with_by_the_next_which_makes_no_finished_entry_again(
    aws: Amazon, home, capsys, monkeypatch
):
    command = preset(home, world=WORLD, picked=select(5))
    plan = make_plan(spec_of(command))
    monkeypatch.setattr(aws, "interrupt", lambda root: (root / plan["world"].directory / "manifest.json").exists())
    fails([*command, *LAUNCH], capsys)
    monkeypatch.setattr(aws, "interrupt", None)
    shutil.rmtree(home / "runs" / plan["world"].directory, ignore_errors=True)
    with monkeypatch.context() as unseen:  # as if the interrupted job's work lay in S3 alone
        unseen.setattr("playpen.cloud.launch.fetch_tree", lambda *_: None)
        cli.main([*command, *LAUNCH])
    assert len(aws.requests) == 2
    said = capsys.readouterr().out
    assert f"| [1/1] {plan['picked'].directory}" in said.replace("|   ", "| "), "the world was there"
    assert artifact.verify(home / "runs" / plan["picked"].directory) == []


def test_a_bucket_that_is_not_there_is_one_line(aws: Amazon, home, capsys, monkeypatch):
    monkeypatch.setenv("PLAYPEN_SAGEMAKER_BUCKET", "nobodys")
    said = fails(["select", "--data", "runs/data", *LAUNCH, "random", "--k", "3"], capsys)
    assert said.startswith("playpen: AWS: ")
    assert "NoSuchBucket" in said
    assert said.count("\n") == 1
    assert not aws.requests


def test_a_role_that_is_not_there_is_one_line(aws: Amazon, home, capsys):
    said = fails(["select", "--data", "runs/data", *LAUNCH, "--machine.sagemaker.role", "nobodys", "random", "--k", "3"], capsys)
    assert said.startswith("playpen: SageMaker's SDK: Value error, IAM role 'nobodys' does not exist.")
    assert said.count("\n") == 1
    assert not aws.requests


def requests_told(said):
    """Return the requests, JSON each, that a dry run has printed."""
    return [json.loads(text) for text in re.findall(r"^\{\n.*?^\}$", said, re.M | re.S)]


def test_a_dry_run_prints_the_whole_request_and_sends_nothing(home, configured, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")
    flags = [
        "--machine.sagemaker.spot",
        "--machine.sagemaker.max-run-seconds",
        "3600",
        "--machine.sagemaker.max-wait-seconds",
        "7200",
    ]
    flags += ["--machine.sagemaker.environment", "WANDB_API_KEY", "HF_HUB_OFFLINE=1"]
    cli.main(["select", "--data", "runs/data", "--dry-run", *LAUNCH, *flags, "random", "--k", "3"])
    said = capsys.readouterr().out
    (request,) = requests_told(said)
    base = request["TrainingJobName"].rpartition("-")[0]
    assert base == f"playpen-select-{make_plan({'select': select(3)})['select'].fingerprint}"
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert request["EnableManagedSpotTraining"] is True
    assert request["CheckpointConfig"] == {"S3Uri": f"s3://{BUCKET}/playpen/{base}/root", "LocalPath": "/opt/ml/checkpoints"}
    assert request["RoleArn"] == ENVIRONMENT["PLAYPEN_SAGEMAKER_ROLE"]
    assert request["AlgorithmSpecification"]["TrainingImage"] == ENVIRONMENT["PLAYPEN_SAGEMAKER_IMAGE"]
    assert {channel["ChannelName"] for channel in request["InputDataConfig"]} == {"inputs", "code", "sm_drivers"}
    assert request["Environment"] | {"WANDB_API_KEY": "***", "HF_HUB_OFFLINE": "1"} == request["Environment"]
    assert "secret-of-mine" not in said
    assert sorted(path.name for path in Path("runs").iterdir()) == ["data"]


def test_the_presets_of_the_sae_workshop_are_one_job_once_the_prompts_are_made_here(home, configured, capsys, monkeypatch):
    monkeypatch.setattr(hub, "pin", lambda reference, kind: f"{reference.partition('@')[0]}@{'0' * 40}")
    (home / "prompts.jsonl").write_text("{}\n")
    cli.main(["run", "tinystories-sae", "--set", "imported.source.paths=[prompts.jsonl]", "--dry-run", *LAUNCH])
    said = capsys.readouterr().out
    assert (
        said.index("here: imported\n")
        < said.index("here: prompts\n")
        < said.index("one job: base, corpus, sae, graphs, dashboard\n")
    )
    assert len(requests_told(said)) == 1
    assert len(requests_told(said)[0]["TrainingJobName"]) <= 63


def test_a_dashboard_is_a_job_that_its_sae_its_model_and_its_corpus_go_along_with(home, configured, capsys):
    for name in ("sae", "base", "corpus"):
        tiny.write_artifact(home / "runs" / "mine" / name, name, lambda out: (out / "held").write_text("x"))
    inputs = ["--sae", "runs/mine/sae", "--model", "runs/mine/base", "--data", "runs/mine/corpus"]
    cli.main(["features", *inputs, "--root", "runs", "--dry-run", *LAUNCH])
    (request,) = requests_told(capsys.readouterr().out)
    base = request["TrainingJobName"].rpartition("-")[0]
    (inputs,) = [c["DataSource"]["S3DataSource"] for c in request["InputDataConfig"] if c["ChannelName"] == "inputs"]
    assert (inputs["S3DataType"], inputs["S3Uri"]) == ("S3Prefix", f"s3://{BUCKET}/playpen/{base}/inputs")


def test_half_an_artifact_of_a_job_that_ended_early_is_left_for_the_next(home, configured):
    plan, said = make_plan({"picked": select(3)}), []
    entry = replace(plan["picked"], fingerprint=artifact.read_manifest("runs/data")["fingerprint"])
    away = Away(open_account(SageMaker()), "base", {"picked": entry}, Path("runs"), said.append)
    there = home / "runs" / ".cloud" / entry.directory
    shutil.copytree("runs/data", there)
    (there / "pool.parquet").unlink()
    away.settle(entry, there.parent, must_be_whole=False)
    assert away.missing(["picked"]) == ["picked"]
    assert "did not come back whole: pool.parquet: missing" in said[0]
    with pytest.raises(PlaypenError, match="did not come back whole"):
        away.settle(entry, there.parent, must_be_whole=True)


def test_what_lies_unfinished_under_a_final_name_is_told_before_a_job_is_paid_for(aws: Amazon, home, capsys):
    command = preset(home, picked=select(5))
    (home / "runs" / make_plan(spec_of(command))["picked"].directory).mkdir()
    assert "is not known to be whole; delete it and run again" in fails([*command, *LAUNCH], capsys)
    assert not aws.requests


def test_what_a_job_needs_and_nobody_said_is_one_line(home, capsys, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    said = fails(["select", "--data", "runs/data", *LAUNCH, "--machine.sagemaker.bucket", "b", "random", "--k", "3"], capsys)
    assert said.startswith("playpen: the launcher sagemaker needs image (--machine.sagemaker.image or PLAYPEN_SAGEMAKER_IMAGE), ")
    assert "bucket (" not in said
    assert said.count("\n") == 1


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="max_wait_seconds includes the run"):
        SageMaker(spot=True, max_run_seconds=10, max_wait_seconds=5)
    with pytest.raises(ValueError, match="a VPC needs both"):
        SageMaker(subnets=("subnet-1",))


def test_a_variable_of_the_container_is_given_or_set_here(monkeypatch):
    monkeypatch.setenv("HERE", "yes")
    assert SageMaker(environment=("HERE", "A=b=c", "EMPTY=")).container_environment() == {"HERE": "yes", "A": "b=c", "EMPTY": ""}
    monkeypatch.delenv("HERE")
    with pytest.raises(PlaypenError, match="'HERE' is neither NAME=VALUE nor a variable that is set here"):
        SageMaker(environment=("HERE",)).container_environment()


def test_a_setting_of_a_flag_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("PLAYPEN_SAGEMAKER_REGION", "eu-west-1")
    assert SageMaker().setting("region") == "eu-west-1"
    assert SageMaker(region="us-east-1").setting("region") == "us-east-1"


def test_the_name_of_a_job_is_that_of_what_it_makes_wherever_and_however_it_runs(home):
    plan = make_plan({"a_b": select(3)})
    assert base_name(plan) == f"playpen-a-b-{plan['a_b'].fingerprint}"
    assert base_name(make_plan({"a_b": select(4)})) != base_name(plan)
    assert len(base_name(make_plan({"x" * 80: select(3)}))) <= 48


def test_files_and_artifacts_go_along_under_their_places_in_the_root(home, monkeypatch):
    monkeypatch.setattr(hub, "pin", lambda reference, kind: f"{reference.partition('@')[0]}@{'0' * 40}")
    (home / "chats.jsonl").write_text("{}\n")
    tiny.write_artifact(home / "runs" / "demo" / "base", "pretrain", lambda out: (out / "weights").write_text("w"))
    refers = {"base": "../base", "tokenizer": "../base", "adapter": "adapter", "base_id": "0"}

    def fill(out):
        (out / "adapter").mkdir()
        write_json(out / "model.json", refers)

    tiny.write_artifact(home / "runs" / "demo" / "tuned", "finetune", fill)
    source = {"kind": "files", "paths": ["chats.jsonl"]}
    plan = make_plan(
        {"data": {"kind": "build-data", "model": "runs/demo/tuned", "source": source, "train": 1, "val": 0, "pool": 1}}
    )
    travel = pack(["data"], plan, Path("runs"), Machine(launcher="sagemaker", dtype="float32", sagemaker=SageMaker(role="r")))
    entry = travel.call["entries"]["data"]
    assert entry["model"] == "./demo/tuned"
    (there,) = entry["source"]["paths"]
    assert re.fullmatch(r"\./\.files/[0-9a-f]{16}/chats\.jsonl", there)
    assert {place: path.resolve() for place, path in travel.inputs.items()} == {
        "demo/tuned": home / "runs" / "demo" / "tuned",
        "demo/base": home / "runs" / "demo" / "base",
        there.removeprefix("./"): home / "chats.jsonl",
    }
    assert travel.call["directories"] == [plan["data"].directory]
    assert travel.call["machine"]["dtype"] == "float32"
    assert (travel.call["machine"]["launcher"], travel.call["machine"]["sagemaker"]["role"]) == ("here", None)


def test_an_input_outside_of_the_root_is_refused_with_the_remedy(home):
    plan = make_plan({"picked": select(3)})
    with pytest.raises(PlaypenError, match=r"runs/data lies outside runs/mine, .* give a --root above both"):
        pack(["picked"], plan, Path("runs/mine"), Machine())


def test_a_model_that_names_its_base_by_a_full_path_is_refused(home):
    elsewhere = {"base": str(home / "base"), "tokenizer": None, "adapter": None, "base_id": "0"}
    tiny.write_artifact(home / "runs" / "tuned", "finetune", lambda out: write_json(out / "model.json", elsewhere))
    plan = make_plan({"data": {"kind": "evaluate", "data": "runs/data", "models": {"tuned": "runs/tuned"}}})
    with pytest.raises(PlaypenError, match=r"runs/tuned refers to .* by its full path"):
        pack(["data"], plan, Path("runs"), Machine())


def test_what_comes_back_changed_or_as_something_else_is_refused(home):
    mark = artifact.read_manifest("runs/data")["fingerprint"]
    check_arrival(Path("runs/data"), mark)
    with pytest.raises(PlaypenError, match=rf"fingerprint {mark}, expected 00000000"):
        check_arrival(Path("runs/data"), "00000000")
    with (home / "runs" / "data" / "pool.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PlaypenError, match=r"did not come back whole: pool.parquet: changed"):
        check_arrival(Path("runs/data"), mark)


def test_a_container_takes_an_artifact_for_finished_only_when_all_of_it_is_there(home):
    root = home / "runs"
    for name in ("torn", "headless"):
        shutil.copytree(root / "data", root / name)
    (root / "torn" / "pool.parquet").unlink()
    (root / "headless" / "manifest.json").unlink()
    for name in ("data.part", "torn.part"):
        (root / name).mkdir()
    keep_whole(root, ["data", "torn", "headless", "not-yet"])
    assert sorted(path.name for path in root.iterdir()) == ["data", "torn.part"]


def test_a_call_whose_entries_would_be_called_otherwise_here_is_refused(home):
    call = {"entries": {"picked": select(3)}, "directories": ["picked-00000000"], "machine": {}}
    write_json(home / "call.json", call)
    with pytest.raises(PlaypenError, match=r"picked-00000000 was asked for, but here it is picked-[0-9a-f]{8}"):
        cli.run_call(home / "call.json")


def test_the_wheel_is_the_package_that_runs_and_the_same_bytes_each_time(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = write_wheel(tmp_path / "one"), write_wheel(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as wheel:
        assert wheel.testzip() is None
        held = {name.removeprefix("playpen/"): wheel.read(name) for name in wheel.namelist() if name.startswith("playpen/")}
    here = {str(f.relative_to(HOME)): f.read_bytes() for f in HOME.rglob("*") if f.is_file() and "__pycache__" not in f.parts}
    assert held == here


@pytest.mark.slow
def test_pip_takes_the_wheel(tmp_path):
    wheel = write_wheel(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    alone = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], check=True, env=alone)
    shown = subprocess.run([*pip, "show", "--files", "playpen"], check=True, env=alone, capture_output=True, text=True).stdout
    assert "playpen/presets/demo.yaml" in shown
    assert (tmp_path / "venv" / "bin" / "playpen").exists()


def test_the_requirements_are_the_wheel_with_its_extras_at_the_versions_of_this_machine(tmp_path):
    write_requirements(tmp_path, Path("playpen-1-py3-none-any.whl"), ("offline", "prompts"))
    assert (tmp_path / "requirements.txt").read_text() == "./playpen-1-py3-none-any.whl[offline,prompts]\n-c constraints.txt\n"
    pins = (tmp_path / "constraints.txt").read_text().splitlines()
    assert f"numpy=={artifact._version('numpy')}" in pins
    assert not any(pin.startswith("playpen==") or "+" in pin for pin in pins)


def test_a_machine_elsewhere_changes_no_name(home):
    plan = make_plan({"picked": select(3)})
    machine = replace(Machine(), launcher="sagemaker", sagemaker=SageMaker(instance_type="ml.g5.xlarge"))
    assert pack(["picked"], plan, Path("runs"), machine).call["directories"] == [plan["picked"].directory]
    assert "sagemaker" not in machine.plain()


def test_the_skypilot_file_of_the_page_is_yaml_and_runs_a_preset():
    page = (Path(__file__).parents[1] / "docs" / "cloud.md").read_text()
    task = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    assert set(task) == {"name", "workdir", "resources", "envs", "file_mounts", "setup", "run"}
    words = shlex.split(task["run"])
    call = tyro.cli(cli.RunArguments, args=words[2:])
    assert (words[:2], call.preset) == ([".venv/bin/playpen", "run"], "tinystories-sae")
    assert str(call.root).startswith(tuple(task["file_mounts"]))
