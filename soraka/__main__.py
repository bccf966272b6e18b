"""`python -m soraka` is `soraka`."""

from soraka.cli import main

main()
