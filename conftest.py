"""Notebooks run at smoke profile under pytest, unless PROFILE says otherwise."""

import os

os.environ.setdefault("PROFILE", "smoke")
