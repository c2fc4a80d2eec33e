"""Amazon's side on loopback: moto's S3, SageMaker and CloudWatch, and containers that run what a job was sent.

Moto keeps jobs but runs none. Here each job's own script (the SDK's `sm_train.sh` out of the channel `sm_drivers`) runs in a directory laid
out as SageMaker documents /opt/ml: channels and checkpoints come from S3, `model/` goes there as an archive and `checkpoints/` as it is.
"""

import io
import json
import logging
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

REGION, BUCKET, ACCOUNT = "eu-central-1", "bucket-of-a-test", "123456789012"
GROUP = "/aws/sagemaker/TrainingJobs"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
    "SAGEMAKER_VALIDATE_ROLE": "false",  # moto has no iam:SimulatePrincipalPolicy
    "PLAYPEN_SAGEMAKER_IMAGE": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/training:1",
    "PLAYPEN_SAGEMAKER_INSTANCE_TYPE": "ml.m5.large",
    "PLAYPEN_SAGEMAKER_ROLE": f"arn:aws:iam::{ACCOUNT}:role/training",
    "PLAYPEN_SAGEMAKER_BUCKET": BUCKET,
}


class Amazon:
    """The servers, the requests for jobs that came in, and the threads that run them."""

    def __init__(self, home: Path, url: str) -> None:
        import boto3

        self.home, self.url = home, url
        self.requests: list[dict[str, Any]] = []
        self.threads: list[threading.Thread] = []
        self.interrupt: Callable[[Path], bool] | None = None
        self.boto = boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name=REGION)
        self.s3, self.logs = self.boto.client("s3", endpoint_url=url), self.boto.client("logs", endpoint_url=url)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.logs.create_log_group(logGroupName=GROUP)

    def job(self, name: str) -> Any:
        """Return moto's record of a job."""
        from moto.sagemaker.models import sagemaker_backends

        return sagemaker_backends[ACCOUNT][REGION].training_jobs[name]

    def came(self, request: dict[str, Any]) -> None:
        """Start the container of a job that moto has taken in."""
        self.requests.append(request)
        self.set(request["TrainingJobName"], "InProgress", "Training")
        self.threads.append(threading.Thread(target=self._serve, args=(request,), daemon=True))
        self.threads[-1].start()

    def set(self, name: str, status: str, secondary: str, reason: str | None = None) -> None:
        """Set what SageMaker tells of a job."""
        job = self.job(name)
        job.secondary_status, job.failure_reason, job.training_job_status = secondary, reason, status

    def _serve(self, request: dict[str, Any]) -> None:
        name = request["TrainingJobName"]
        try:
            reason = self._run(request)
        except Exception as error:  # of this emulation: the test must see it
            reason = f"InternalServerError: {error!r}"
        self.set(name, "Failed" if reason else "Completed", "Failed" if reason else "Completed", reason)

    def _run(self, request: dict[str, Any]) -> str | None:
        name, ml = request["TrainingJobName"], self.home / request["TrainingJobName"] / "ml"
        for channel in request["InputDataConfig"]:
            self.download(channel["DataSource"]["S3DataSource"]["S3Uri"], ml / "input" / "data" / channel["ChannelName"])
        place = request["CheckpointConfig"]
        checkpoints = Path(place["LocalPath"].replace("/opt/ml", str(ml)))
        self.download(place["S3Uri"], checkpoints)
        script = self._lay_out(request, ml)
        status = self._container(name, script, self._environment(request, ml), checkpoints)
        self.upload(checkpoints, place["S3Uri"])
        if status == 0:
            self._pack(ml / "model", f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output/model.tar.gz")
            return None
        failure = ml / "output" / "failure"
        told = failure.read_text() if failure.exists() else "interrupted"
        return f"AlgorithmError: {told}, exit code: {status}"

    def _lay_out(self, request: dict[str, Any], ml: Path) -> Path:
        """Write what SageMaker writes into a container, with its root in the place of /opt/ml; return the script."""
        drivers = ml / "input" / "data" / "sm_drivers"
        for file in (f for f in drivers.rglob("*") if f.suffix in (".py", ".sh")):
            file.write_text(file.read_text().replace("/opt/ml", str(ml)))
        config = ml / "input" / "config"
        for folder in (config, ml / "model", ml / "output"):
            folder.mkdir(parents=True, exist_ok=True)
        channels = {channel["ChannelName"]: {"TrainingInputMode": "File"} for channel in request["InputDataConfig"]}
        host = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
        host["current_instance_type"] = request["ResourceConfig"]["InstanceType"]
        for name, held in (("hyperparameters", {}), ("inputdataconfig", channels), ("resourceconfig", host)):
            (config / f"{name}.json").write_text(json.dumps(held))
        return Path(request["AlgorithmSpecification"]["ContainerArguments"][-1].split()[-1].replace("/opt/ml", str(ml)))

    def _environment(self, request: dict[str, Any], ml: Path) -> dict[str, str]:
        given = {name: value.replace("/opt/ml", str(ml)) for name, value in request["Environment"].items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            "PATH": path,
            "HOME": str(ml.parent),
            "TRAINING_JOB_NAME": request["TrainingJobName"],
            "OMP_NUM_THREADS": "1",
            **given,
        }

    def _container(self, name: str, script: Path, environment: dict[str, str], checkpoints: Path) -> int:
        """Run a script, its output sent to CloudWatch line by line; kill it when the test says so."""
        stream = f"{name}/algo-1-{time.time_ns()}"
        self.logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        process = subprocess.Popen(
            ["bash", str(script)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if self.interrupt is not None:
            threading.Thread(target=self._look, args=(process, checkpoints), daemon=True).start()
        assert process.stdout
        for line in process.stdout:
            event = {"timestamp": int(time.time() * 1000), "message": line.rstrip("\n") or " "}
            self.logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=[event])
        return process.wait()

    def _look(self, process: "subprocess.Popen[str]", checkpoints: Path) -> None:
        while process.poll() is None:
            if self.interrupt is not None and self.interrupt(checkpoints):
                os.killpg(process.pid, 9)
                return
            time.sleep(0.01)

    def download(self, address: str, folder: Path) -> None:
        """Bring the objects whose keys begin so into a folder, as a channel of the mode File has them."""
        place = urlparse(address)
        prefix = place.path.strip("/") + "/"
        folder.mkdir(parents=True, exist_ok=True)
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=prefix):
            for item in page.get("Contents", ()):
                file = folder / item["Key"].removeprefix(prefix)
                file.parent.mkdir(parents=True, exist_ok=True)
                self.s3.download_file(place.netloc, item["Key"], str(file))

    def upload(self, folder: Path, address: str) -> None:
        """Send the files of a folder to S3."""
        place = urlparse(address)
        for file in (f for f in folder.rglob("*") if f.is_file()):
            self.s3.upload_file(str(file), place.netloc, f"{place.path.strip('/')}/{file.relative_to(folder).as_posix()}")

    def _pack(self, folder: Path, address: str) -> None:
        held, place = io.BytesIO(), urlparse(address)
        with tarfile.open(fileobj=held, mode="w:gz") as archive:
            archive.add(folder, arcname=".")
        self.s3.put_object(Bucket=place.netloc, Key=place.path.lstrip("/"), Body=held.getvalue())

    def keys(self) -> list[str]:
        """Return all keys of the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]


@contextmanager
def amazon(home: Path) -> Iterator[Amazon]:
    """Serve while the block runs."""
    from moto.sagemaker.responses import SageMakerResponse
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    served = Amazon(home, f"http://{host}:{port}")
    take = SageMakerResponse.create_training_job

    def create_training_job(self: Any) -> Any:
        answer = take(self)
        served.came(json.loads(self.body))
        return answer

    SageMakerResponse.create_training_job = create_training_job
    try:
        yield served
    finally:
        for thread in served.threads:
            thread.join()
        SageMakerResponse.create_training_job = take
        server.stop()
