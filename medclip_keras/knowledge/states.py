"""The label of a finding in a report, sentence or image: one of four states, kept until batches are made."""

import enum

import numpy as np
import numpy.typing as npt


class LabelState(enum.IntEnum):
    """The state of one concept in one report, sentence or image; stored as int8.

    CheXpert's tables (Irvin et al., AAAI 2019) write the same four as blank, 1, 0 and -1.
    """

    NOT_MENTIONED = 0
    POSITIVE = 1
    NEGATIVE = 2
    UNCERTAIN = 3


StateVector = npt.NDArray[np.int8]  # (..., num_findings), `LabelState`
