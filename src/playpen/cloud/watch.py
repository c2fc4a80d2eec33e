"""A training job under way: found by its name, followed to its end with its log, and what is told of one that failed."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from playpen.cloud.account import Account

GROUP = "/aws/sagemaker/TrainingJobs"
"""CloudWatch's group of the logs of all training jobs."""
ENDED = ("Completed", "Failed", "Stopped")
LAST_LINES = 8
"""Lines of its log that are told of a job that failed."""
Say = Callable[[str], None]


def latest_job(account: Account, base: str) -> dict[str, Any] | None:
    """Return the description of the youngest job called `base` and a time, if there is any."""
    pages = account.jobs.get_paginator("list_training_jobs").paginate(NameContains=base)
    found = [job for page in pages for job in page["TrainingJobSummaries"] if job["TrainingJobName"].startswith(f"{base}-")]
    return describe(account, max(found, key=lambda job: job["CreationTime"])["TrainingJobName"]) if found else None


def describe(account: Account, name: str) -> dict[str, Any]:
    """Return all that SageMaker tells of a job."""
    return account.jobs.describe_training_job(TrainingJobName=name)


def output_of(job: dict[str, Any]) -> str:
    """Return the address of a job's output in S3."""
    return job["ModelArtifacts"]["S3ModelArtifacts"]


def follow(account: Account, name: str, say: Say) -> tuple[dict[str, Any], list[str]]:
    """Tell a job's states and its log until it ends; return its description and the last lines."""
    log, state, last = Log(account, name), "", deque[str](maxlen=LAST_LINES)
    while True:
        job = describe(account, name)  # before its log, so that all of it is read of a job that has ended
        if (now := job["SecondaryStatus"]) != state:
            say(f"  {name}: {(state := now)}")
        for line in log.new_lines():
            say(f"  | {line}")
            if not line.startswith("+"):  # the trace of the SDK's shell script
                last.append(line)
        if job["TrainingJobStatus"] in ENDED:
            return job, list(last)
        time.sleep(account.settings.poll_seconds)


class Log:
    """The lines of a job's log, each told once. An interrupted job writes on in another stream, so they are looked for each time."""

    def __init__(self, account: Account, name: str) -> None:
        self.client, self.name = account.logs, name
        self.places: dict[str, str] = {}

    def new_lines(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        for stream in self._streams():
            while True:
                place = {"nextToken": self.places[stream]} if stream in self.places else {}
                page = self.client.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True, **place)
                yield from (line for event in page["events"] for line in event["message"].splitlines())
                if page["nextForwardToken"] == self.places.get(stream):
                    break
                self.places[stream] = page["nextForwardToken"]

    def _streams(self) -> list[str]:
        pages = self.client.get_paginator("describe_log_streams").paginate(
            logGroupName=GROUP, logStreamNamePrefix=f"{self.name}/"
        )
        try:
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except self.client.exceptions.ResourceNotFoundException:  # the account's first job makes the group
            return []


def why_not(job: dict[str, Any], last: list[str]) -> str:
    """Return why a job has not completed: SageMaker's reason, and the last lines of its log."""
    name, status = job["TrainingJobName"], job["TrainingJobStatus"]
    reason = " ".join(job.get("FailureReason", job.get("SecondaryStatus", "no reason given")).split())
    lines = "".join(f"\n  | {line}" for line in last)
    return f"the job {name} ended as {status}: {reason}; run again, which starts another that goes on from what it left{lines}"
