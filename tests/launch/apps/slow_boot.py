"""An app that takes long to import."""

import sys
import time

sys.stderr.write("importing\n")
sys.stderr.flush()
time.sleep(60)
