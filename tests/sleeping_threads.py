"""Imported before torch: its threads sleep while they wait, as those of trainings do, so that busy cores are shared."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
