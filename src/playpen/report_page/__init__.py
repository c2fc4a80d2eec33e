"""The page that `report` writes: what it reads, what it counts, what it draws, and how it is laid out."""
