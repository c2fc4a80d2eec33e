"""What a sceptic needs to see: thresholds and rivals of the claims, written into a plan before any of its arms is trained."""

from typing import Annotated

from pydantic import Field

from playpen.config import config

Share = Annotated[float, Field(gt=0, le=1)]


@config
class Needed:
    """What each claim of `evidence` needs to hold."""

    lds: Share = 0.4
    """Least LDS of the labels."""
    retained: Annotated[float, Field(gt=0)] = 0.8
    """Least share of it that the predictions retain."""
    auroc: Share = 0.85
    """Least held-out AUROC of the row that made the predictions."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """p, adjusted, below which an arm of the family is beaten."""
    lds_rivals: tuple[str, ...] = ("bm25", "rds")
    """Scores of the validation that the labels must be ahead of in LDS, by a paired interval above 0."""
    controls: tuple[str, ...] = ("length", "source", "source_length", "source_length trees", "bm25", "hidden", "hidden trees")
    """Rows of classify's report that the row which made the predictions must be ahead of, overall and within a source."""
