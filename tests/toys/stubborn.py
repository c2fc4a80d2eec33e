"""Break half-way as `fragile` does, but go on with what is there."""

from playpen.stages.fragile import Config, run

VERSION = 1
RESUMABLE = True
__all__ = ["RESUMABLE", "VERSION", "Config", "run"]
