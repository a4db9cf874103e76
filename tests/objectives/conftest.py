"""`restated` and `objective_cases` are imported by the tests here, and by a process that they start."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent))
