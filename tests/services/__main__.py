"""`python -m tests.services`: see `up`."""

import sys

from tests.services.up import main

sys.exit(main(sys.argv[1:]))
