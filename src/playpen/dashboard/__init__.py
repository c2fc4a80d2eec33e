"""The page of a feature dashboard, and the server that lets it look at a text."""
