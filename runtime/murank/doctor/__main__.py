"""`python -m murank.doctor PROBE [ARGUMENT]`: one probe in a process of its own."""

import sys

from murank.doctor.probes import answer

if __name__ == "__main__":
    print(answer(*sys.argv[1:]))
