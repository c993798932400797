"""`python -m der_graph` is the command line `der`."""

import sys

from der_graph.cli import main

sys.exit(main())
