"""Make entries of a plan in one training job, and bring their artifacts home."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from playpen import artifact
from playpen.cloud.account import Account, fetch_archive, fetch_tree, in_one_line, open_account, upload
from playpen.cloud.request import request, submit
from playpen.cloud.travel import check_arrival, pack
from playpen.cloud.watch import ENDED, describe, follow, latest_job, output_of, why_not
from playpen.config import PlaypenError, inputs_of
from playpen.stage import is_ready, load_stage, lock_file

if TYPE_CHECKING:
    from playpen.machine import Machine
    from playpen.stage import Entry

Say = Callable[[str], None]
NAME_LENGTH = 48
"""Of the 63 characters of a job's name, what the SDK's hyphen and time leave."""


def base_name(plan: dict[str, "Entry"]) -> str:
    """Return how all jobs for a plan are called, but for the time: by its last entry, and by the fingerprints of all of them."""
    marks = [entry.fingerprint for entry in plan.values()]
    mark = marks[0] if len(marks) == 1 else hashlib.sha256("".join(marks).encode()).hexdigest()[:8]
    word = re.sub("[^a-zA-Z0-9]+", "-", list(plan)[-1])[: NAME_LENGTH - len("playpen--") - len(mark)].strip("-")
    return f"playpen-{word}-{mark}"


def leaving(todo: list[str], plan: dict[str, "Entry"], root: Path) -> list[str]:
    """Return the entries to launch now: all but those that stay and what waits for them; none while one that stays is ready."""
    if any(stays(plan[name]) and is_ready(plan[name], plan, root) for name in todo):
        return []
    waiting: set[str] = set()
    for name in todo:
        if stays(plan[name]) or waiting & set(inputs_of(plan[name].config)):
            waiting.add(name)
    return [name for name in todo if name not in waiting]


def stays(entry: "Entry") -> bool:
    """Say whether a stage works on what lies beside the artifacts, so that it cannot be launched."""
    return getattr(load_stage(entry.kind), "STAYS", False)


def tell_jobs(todo: list[str], plan: dict[str, "Entry"], root: Path, machine: "Machine", say: Say) -> None:
    """Print, as JSON, the request for each job that a run would start; nothing is sent."""
    account = open_account(machine.sagemaker)
    while todo:
        staying = [name for name in todo if stays(plan[name]) and not set(inputs_of(plan[name].config)) & set(todo)]
        if staying:
            say(f"  here: {', '.join(staying)}")
        else:
            away = leaving(todo, plan, root)
            with in_one_line():
                made = request(account, pack(away, plan, root, machine), base_name(plan))
            say(f"  one job: {', '.join(away)}\n{json.dumps(made, indent=2)}")
        todo = [name for name in todo if name not in (staying or away)]


def launch(names: list[str], plan: dict[str, "Entry"], root: Path, machine: "Machine", say: Say) -> None:
    """Make entries in a training job, or take what one has made or is making; then their artifacts lie under their names.

    Raises PlaypenError when the job fails; what it finished comes home all the same.
    """
    base = base_name(plan)
    with FileLock(lock_file(base, root)), in_one_line():
        away = Away(open_account(machine.sagemaker), base, plan, root, say)
        missing = away.missing(names)
        for name in missing:
            artifact.check_free(root / plan[name].directory)
        if missing and (job := latest_job(away.account, base)):
            missing = away.take(job, missing)
        if missing:
            job = away.start(missing, machine)
            if left := away.take(job, missing):
                raise PlaypenError(f"the job {job['TrainingJobName']} completed without {', '.join(left)}; its log says why")


@dataclass(frozen=True)
class Away:
    """The jobs of one plan, and where what they make goes."""

    account: Account
    base: str
    plan: dict[str, "Entry"]
    root: Path
    say: Say

    def missing(self, names: list[str]) -> list[str]:
        """Return the entries whose artifacts are not at home."""
        return [name for name in names if not (self.root / self.plan[name].directory / artifact.MANIFEST).exists()]

    def start(self, names: list[str], machine: "Machine") -> dict[str, Any]:
        """Send up what entries need, start a job that makes them and return its description."""
        travel = pack(names, self.plan, self.root, machine)
        upload(self.account, travel.inputs, self.base)
        name = submit(self.account, travel, self.base)
        self.say(f"  {name} makes {', '.join(names)}; it goes on when this command ends, and the same command finds it again")
        region = self.account.boto.region_name
        self.say(f"  to end it: aws sagemaker stop-training-job --training-job-name {name} --region {region}")
        return describe(self.account, name)

    def take(self, job: dict[str, Any], names: list[str]) -> list[str]:
        """Bring home what a job makes, once it has ended; return the entries that it has not made.

        Raises PlaypenError when it fails meanwhile; of one that had failed before, only what it finished counts.
        """
        ended, last = (job, None) if job["TrainingJobStatus"] in ENDED else follow(self.account, job["TrainingJobName"], self.say)
        there = self.root / ".cloud" / self.base
        shutil.rmtree(there, ignore_errors=True)
        done = ended["TrainingJobStatus"] == "Completed"
        if not done or not fetch_archive(self.account, output_of(ended), there):
            for directory in (self.plan[name].directory for name in names):
                fetch_tree(self.account, self.account.key(self.base, f"root/{directory}"), there / directory)
        for name in names:
            self.settle(self.plan[name], there, must_be_whole=done)
        shutil.rmtree(there, ignore_errors=True)
        if last is not None and not done:
            raise PlaypenError(why_not(ended, last))
        return self.missing(names)

    def settle(self, entry: "Entry", there: Path, must_be_whole: bool) -> None:
        """Give an artifact that has come back its name, once it is whole, unless another process was quicker.

        Of a job that ended early, S3 may hold half an artifact: that one is left for the next job.
        """
        final, place = self.root / entry.directory, there / entry.directory
        with FileLock(lock_file(entry.directory, self.root)):
            if not (place / artifact.MANIFEST).exists() or final.exists():
                return
            try:
                check_arrival(place, entry.fingerprint)
            except PlaypenError as error:
                if must_be_whole:
                    raise
                self.say(f"  {error}")
                return
            place.rename(final)
            self.say(f"  {entry.directory} is there")
