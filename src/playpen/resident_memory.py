"""Peak resident memory of this process, counted anew from where it is asked to."""

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What makes Linux count the peak anew (proc_pid_clear_refs(5))."""


def start_peak() -> bool:
    """Count the peak from now on; return whether this system can."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak() -> int | None:
    """Return the most bytes held since `start_peak`, or since the process began; None where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
