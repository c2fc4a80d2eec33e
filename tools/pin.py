"""Resolve every dependency again and write the exact versions, without hosts, into pyproject.toml.

make pin
"""

import os
import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
COMPILE = "pip compile pyproject.toml --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links --all-extras --group dev"
# The CUDA build of torch brings these at exact versions of its own, and the CPU build does not know them.
FOLLOW_TORCH = ("nvidia-", "cuda-", "triton", "torchvision", "torchaudio")


def main() -> None:
    """Rewrite the list of constraints in place."""
    text = re.sub(r"\nconstraint-dependencies = \[\n.*?\n\]\n", "\n", PROJECT.read_text(), flags=re.S)
    PROJECT.write_text(text)
    done = subprocess.run(
        [os.environ.get("UV", "uv"), *COMPILE.split(), "--quiet"], cwd=PROJECT.parent, capture_output=True, text=True, check=True
    )
    lines = [line.replace("+cpu", "") for line in done.stdout.splitlines() if line and not line.startswith(("#", "-", "."))]
    pins = sorted({"torch==" + line.split("==")[1].split()[0] if line.startswith("torch==") else line for line in lines})
    kept = [line for line in pins if not line.startswith(FOLLOW_TORCH) and "'never'" not in line]
    block = "constraint-dependencies = [\n" + "".join(f'    "{line}",\n'.replace("'", "'") for line in kept) + "]\n"
    PROJECT.write_text(text.replace("[tool.uv]\n", "[tool.uv]\n" + block, 1))


if __name__ == "__main__":
    main()
