"""What the tests of deployment share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
