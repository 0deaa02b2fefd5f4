"""Shared by all tests: this folder is importable, and arithmetic runs on one thread a process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
