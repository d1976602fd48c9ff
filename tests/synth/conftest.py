"""Most tests here render without compiling: the numbers are the same, and nobody waits for a compiler."""

import os

os.environ.setdefault("DOPPEL_RAY_COMPILE", "0")
