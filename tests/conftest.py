"""Shared by all tests: arithmetic runs on one thread a process, and no example is timed."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")
