"""``python -m artfs.cli``."""

from artfs.cli import main

main()
