"""`restated` and `objective_cases` are imported by the tests here."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent))
