"""`python -m playpen` is `playpen`."""

from playpen.cli import main

main()
