"""Where the programs that tests compile are kept: equal ones are compiled once, by whichever test comes first, in
whichever of pytest-xdist's processes, and by the commands that tests start."""

import os
import tempfile

MINE = "PYTEST_XDIST_WORKER" not in os.environ  # the process that makes it, and removes it
DIRECTORY = tempfile.mkdtemp(prefix="rmo-compiled-") if MINE else os.environ["JAX_COMPILATION_CACHE_DIR"]
