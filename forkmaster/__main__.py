"""`python -m forkmaster` is the same as `forkmaster`."""

from forkmaster.cli.entry import main

if __name__ == "__main__":
    main()
