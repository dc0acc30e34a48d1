"""`make test-ray`: these run where Ray is installed, and only when they are asked for."""

import os

collect_ignore_glob = [] if "RAY" in os.environ else ["*.py"]
