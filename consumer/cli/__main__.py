"""`python -m consumer.cli` is `tensorfleet`."""

import sys

from consumer.cli import main

sys.exit(main())
