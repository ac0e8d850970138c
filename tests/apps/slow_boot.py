"""Takes the seconds of SLOW_BOOT to import, or until the file SLOW_BOOT_UNTIL is there."""

import os
import time
from pathlib import Path

from hello import application  # noqa: F401

if "SLOW_BOOT_UNTIL" in os.environ:
    while not Path(os.environ["SLOW_BOOT_UNTIL"]).exists():
        time.sleep(0.02)
else:
    time.sleep(float(os.environ.get("SLOW_BOOT", "0.5")))
