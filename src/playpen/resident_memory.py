"""Peak resident memory of a process, this one or another; its own can be counted anew from where it is asked to."""

from pathlib import Path
from typing import Literal

CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What makes Linux count the peak anew (proc_pid_clear_refs(5))."""


def start_peak() -> bool:
    """Count the peak from now on; return whether this system can."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak(process: int | Literal["self"] = "self") -> int | None:
    """Return the most bytes held since `start_peak`, or since the process began; None where the system does not tell, or it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
