"""The page of explore: static files that open from disk, made of the parts of the feature dashboard."""
