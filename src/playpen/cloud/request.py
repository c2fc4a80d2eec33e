"""The request for a training job, which ModelTrainer of the SageMaker SDK makes and sends."""

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from playpen import artifact
from playpen.cloud.account import Account
from playpen.cloud.travel import Travel
from playpen.cloud.wheel import write_requirements, write_wheel
from playpen.config import PlaypenError
from playpen.machine import SageMaker

ROOT = "/opt/ml/checkpoints"
"""The directory of the container that SageMaker keeps a copy of in S3, and fills from there when a job starts."""
COMMAND = "python3 -m zipfile -e {wheel} unpacked && PYTHONPATH=unpacked:$PYTHONPATH python3 -m playpen.cloud.container call.json"
SDK_CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
"""In the place of the SDK's configuration files, so that a request depends on playpen's settings alone; and without its telemetry."""


class Withheld(Exception):
    """Carries a request that is not sent."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__()
        self.params = params


def submit(account: Account, travel: Travel, base: str) -> str:
    """Start a job whose inputs are in S3; return its name, `base` and the time."""
    return train(
        account, travel, base, send=True
    )._latest_training_job.training_job_name  # as the class's own documentation reads it


def request(account: Account, travel: Travel, base: str) -> dict[str, Any]:
    """Return the request that `submit` would send, with `***` for values that come from this environment; nothing is sent."""
    try:
        train(account, travel, base, send=False)
    except Withheld as withheld:
        hidden = dict.fromkeys(account.settings.secrets(), "***")
        return {**withheld.params, "Environment": {**withheld.params["Environment"], **hidden}}
    raise AssertionError("the SDK made no request")


def train(account: Account, travel: Travel, base: str, send: bool) -> Any:
    """Return a ModelTrainer that has started a job; raises PlaypenError with what the SDK refuses, as a role that may not do the work."""
    trainer, configs = sdk()
    from sagemaker.core.helper.iam_role_resolver import RoleValidationError

    with TemporaryDirectory() as folder:
        try:
            made = make_trainer(trainer, configs, account, travel, base, Path(folder), send)
            made.train(wait=False, logs=False)
        except (RoleValidationError, ValueError) as error:
            # A failed check of pydantic's would show all that was given, variables too.
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise PlaypenError(f"SageMaker's SDK: {' '.join(why.split())}") from None
    return made


def make_trainer(trainer: Any, configs: Any, account: Account, travel: Travel, base: str, folder: Path, send: bool) -> Any:
    """Return a ModelTrainer for a job; without `send`, its `train` raises Withheld with the request and sends nothing at all."""
    settings = account.settings
    inputs = [configs.InputData(channel_name="inputs", data_source=account.address(base, "inputs"))] if travel.inputs else []
    return trainer(
        base_job_name=base,
        sagemaker_session=make_session(account, send),
        role=settings.needed("role"),
        training_image=settings.needed("image"),
        environment=environment(settings),
        source_code=configs.SourceCode(**write_source(settings, travel, folder)),
        compute=configs.Compute(
            instance_type=settings.needed("instance_type"),
            instance_count=1,
            volume_size_in_gb=settings.volume_gb,
            enable_managed_spot_training=settings.spot,
        ),
        stopping_condition=configs.StoppingCondition(
            max_runtime_in_seconds=settings.max_run_seconds,
            **({"max_wait_time_in_seconds": settings.max_wait_seconds} if settings.spot else {}),
        ),
        networking=configs.Networking(subnets=list(settings.subnets), security_group_ids=list(settings.security_groups))
        if settings.subnets
        else None,
        input_data_config=inputs,
        output_data_config=configs.OutputDataConfig(s3_output_path=account.address(base, "output")),
        checkpoint_config=configs.CheckpointConfig(s3_uri=account.address(base, "root"), local_path=ROOT),
    )


def sdk() -> tuple[Any, Any]:
    """Return ModelTrainer and the module of its configs, which take some ten seconds to import."""
    for name in ("sagemaker", "sagemaker.core", "sagemaker.train", "sagemaker.config"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from sagemaker.core.training import configs
        from sagemaker.train.model_trainer import ModelTrainer
    except ImportError as error:
        raise PlaypenError(f"the launcher sagemaker needs its SDK ({error}): pip install 'playpen[sagemaker]'") from None
    return ModelTrainer, configs


def make_session(account: Account, send: bool) -> Any:
    """Return the SDK's session, which uploads the job's code to our bucket: its own would make the bucket if there is none."""
    from sagemaker.core.helper.session_helper import Session

    class OurBucket(Session):
        def default_bucket(self) -> str:
            return account.bucket

        def upload_data(self, path: str, bucket: str, key_prefix: str, callback: Any = None, extra_args: Any = None) -> str:
            return super().upload_data(path, bucket, key_prefix, callback, extra_args) if send else f"s3://{bucket}/{key_prefix}"

    boto = account.boto if send else silent_session(account.boto.region_name)
    return OurBucket(boto_session=boto, sagemaker_config=SDK_CONFIG, default_bucket_prefix=account.settings.prefix.strip("/"))


def silent_session(region: str) -> Any:
    """Return a boto3 session that sends nothing: a job's request is raised as Withheld, all else refused as AWS would."""
    import boto3
    from botocore.exceptions import ClientError

    def withhold(params: dict[str, Any], **_: Any) -> None:
        raise Withheld(params)

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "a dry run sends nothing"}}, "any")

    boto = boto3.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name=region)
    boto.events.register("provide-client-params.sagemaker.CreateTrainingJob", withhold)
    boto.events.register("before-send", refuse)
    return boto


def write_source(settings: SageMaker, travel: Travel, folder: Path) -> dict[str, str]:
    """Write what the container starts from: the wheel, the call, and what to install; return it as the SDK wants it told."""
    wheel = write_wheel(folder)
    (folder / "call.json").write_text(json.dumps(travel.call))  # its order is the plan's
    found = {"source_dir": str(folder), "command": COMMAND.format(wheel=wheel.name)}
    if settings.install == "nothing":
        return found
    write_requirements(folder, wheel, settings.extras)
    return {**found, "requirements": "requirements.txt"}


def environment(settings: SageMaker) -> dict[str, str]:
    """Return the container's variables: where the plan's root is, which commit runs, and the user's own."""
    own = {"PLAYPEN_ROOT": ROOT, "PLAYPEN_COMMIT": artifact.commit() or ""}
    quiet = {"SM_LOG_LEVEL": "30"}  # the SDK's scripts would write all variables into the log
    return {**quiet, **own, **settings.container_environment()}
