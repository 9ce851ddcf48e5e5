"""The harness is no package: pytest finds it here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
