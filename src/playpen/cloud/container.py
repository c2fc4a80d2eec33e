"""What a training job on SageMaker runs: the entries of a plan, in the directory that SageMaker keeps a copy of in S3.

An interrupted job, or the next one, finds there what the last one left: finished artifacts, and unfinished work under `.part`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

from playpen import artifact

TOLD_LINES, TOLD_BYTES = 10, 1000
"""How much of the last lines becomes the job's failure reason, of which SageMaker keeps 1,024 bytes."""


def main(call: Path) -> None:
    """Make the entries of a call and leave their artifacts in SM_MODEL_DIR; a failure leaves its last lines for SageMaker."""
    root = Path(os.environ["PLAYPEN_ROOT"])
    directories = json.loads(call.read_text())["directories"]
    bring_inputs(Path(os.environ.get("SM_CHANNEL_INPUTS", "")), root)
    keep_whole(root, directories)
    status, last = run(call.resolve(), root)
    if status:
        failure = Path(os.environ["SM_OUTPUT_FAILURE"])
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_bytes("".join(last).encode()[-TOLD_BYTES:])
        raise SystemExit(status)
    for name in directories:
        copy_tree(root / name, Path(os.environ["SM_MODEL_DIR"]) / name)


def bring_inputs(channel: Path, root: Path) -> None:
    """Give the root what the job was sent; what an earlier job left there stays."""
    root.mkdir(parents=True, exist_ok=True)
    if channel.name:
        copy_tree(channel, root)


def copy_tree(source: Path, target: Path) -> None:
    """Copy the files that the target lacks, as links where the disk is the same."""
    for file in sorted(f for f in source.rglob("*") if f.is_file()):
        place = target / file.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:
                shutil.copyfile(file, place)


def keep_whole(root: Path, directories: list[str]) -> None:
    """Delete what S3 holds half of, because a job ended while it was copied: it counts as finished only if all its files are right."""
    for name in directories:
        final = root / name
        if final.exists() and (not (final / artifact.MANIFEST).exists() or artifact.verify(final)):
            shutil.rmtree(final)
        elif final.exists():
            shutil.rmtree(root / f"{name}.part", ignore_errors=True)


def run(call: Path, root: Path) -> tuple[int, list[str]]:
    """Run `playpen exec` on a call in the root; return its exit status and the last lines that it wrote to stderr."""
    command = [sys.executable, "-m", "playpen", "exec", str(call)]
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    last: deque[str] = deque(maxlen=TOLD_LINES)
    with subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            last.append(line)
    return process.returncode, list(last)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
