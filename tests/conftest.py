"""Its place puts tests/ on the path, so that tests can `import tiny`."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let Ray's processes find this folder's modules, and write into one home that goes: a process keeps the token that it found there."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    home = tmp_path_factory.getbasetemp() / "ray_home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("HOME", str(home))
        yield
