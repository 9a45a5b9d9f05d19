"""`python -m bayesfs`: the same as the command `bayesfs`."""

import sys

from bayesfs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
