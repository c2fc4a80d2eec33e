"""How many bytes new work may take on this machine: what is free, and no more than a container's limits leave.

Linux tells it in /proc/meminfo (MemAvailable, which counts caches that it would give up) and, for the control groups of a
process (cgroups(7), versions 1 and 2), in files of each group and of those around it.
"""

from collections.abc import Iterator
from pathlib import Path

from playpen.config import PlaypenError

GROUPS = Path("/sys/fs/cgroup")
NAMES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Files of the limit and of the use, and the line of `memory.stat` that tells of caches to give up, by the controller's name."""


def free_memory(proc: Path = Path("/proc"), groups: Path = GROUPS) -> int:
    """Return the bytes that may still be taken; raises PlaypenError where the system does not tell."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        raise PlaypenError(f"this system does not tell how much memory is free ({proc / 'meminfo'}); use Linux") from None
    available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min([available, *_left_by_groups(proc / "self" / "cgroup", groups)])


def _left_by_groups(own: Path, groups: Path) -> Iterator[int]:
    """Yield what each group of this process, and each around those, leaves below its limit."""
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        name = "memory" if "memory" in controllers.split(",") else controllers
        if name in NAMES:
            place = groups / name / path.lstrip("/")
            around = [folder for folder in (place, *place.parents) if folder.is_relative_to(groups / name)]
            yield from (left for folder in around if (left := _left(folder, *NAMES[name])) is not None)


def _left(group: Path, limit: str, used: str, cache: str) -> int | None:
    """Return the limit of a group less its use; None where it has no limit."""
    if not (group / limit).exists() or not (most := (group / limit).read_text().strip()).isdigit():
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(most) - int((group / used).read_text()) + int(stat.get(cache, 0))
