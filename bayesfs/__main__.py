"""`python -m bayesfs`: the same as the command `bayesfs`."""

from bayesfs.cli import main

if __name__ == "__main__":
    main()
