"""A wheel of the playpen that runs, from a checkout or an installation, made without a build tool or a network."""

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

HOME = Path(__file__).parents[1]
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a wheel, so that the same sources are the same bytes."""
TAGS = "Wheel-Version: 1.0\nGenerator: playpen\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path) -> Path:
    """Write `playpen-VERSION-py3-none-any.whl` into a folder and return its path; the same sources give the same bytes."""
    version = metadata.version("playpen")
    wheel = folder / f"playpen-{version}-py3-none-any.whl"
    info = f"playpen-{version}.dist-info"
    held = {f"playpen/{file.relative_to(HOME).as_posix()}": file.read_bytes() for file in _sources()}
    held |= {f"{info}/METADATA": _about("METADATA").encode(), f"{info}/WHEEL": TAGS.encode()}
    held |= {f"{info}/entry_points.txt": _about("entry_points.txt").encode()}
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in held.items())
    held[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in held.items():
            out.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return wheel


def _sources() -> list[Path]:
    return sorted(file for file in HOME.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _about(name: str) -> str:
    """Return a file of the installation's metadata; one that it lacks is empty."""
    return metadata.distribution("playpen").read_text(name) or ""


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def write_requirements(folder: Path, wheel: Path, extras: tuple[str, ...]) -> None:
    """Write `requirements.txt`, which installs a wheel beside it with these extras, and `constraints.txt`, the versions of this machine."""
    there = {d.metadata["Name"].lower(): d.version.partition("+")[0] for d in metadata.distributions() if d.metadata["Name"]}
    pins = [f"{name}=={version}" for name, version in sorted(there.items()) if name != "playpen"]
    (folder / "constraints.txt").write_text("\n".join(pins) + "\n")
    wanted = f"[{','.join(extras)}]" if extras else ""
    (folder / "requirements.txt").write_text(f"./{wheel.name}{wanted}\n-c constraints.txt\n")
