"""Which release this process runs. Imported once, as real application code is."""

import os
import time
from pathlib import Path

VERSION = (Path(__file__).parent / "VERSION").read_text().strip()
BODY = f"version={VERSION} pid={os.getpid()}\n".encode()

# A real project imports a framework, models and clients; that time is what a rollout has to hide.
time.sleep(float(os.environ.get("SITE_IMPORT_SECONDS", "0")))
