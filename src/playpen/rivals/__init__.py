"""Rivals: the methods of `score`, each a frozen config that gives every row a score by another idea than ours."""
