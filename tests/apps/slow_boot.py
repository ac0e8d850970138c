"""Takes the seconds of SLOW_BOOT to import."""

import os
import time

from hello import application  # noqa: F401

time.sleep(float(os.environ.get("SLOW_BOOT", "0.5")))
