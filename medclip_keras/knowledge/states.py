"""The label of a finding in a report, sentence or image: a state, kept until batches are made."""

import enum
from typing import Any

import numpy as np
import numpy.typing as npt


class LabelState(enum.IntEnum):
    """The state of one concept in one report, sentence or image; stored as int8.

    CheXpert's tables (Irvin et al., AAAI 2019) write the first four as blank, 1, 0 and -1. A report labels
    every concept, and is silent about most. An archive labels the images with some concepts and never with
    the others: its silence about an unlabelled concept does not tell that the finding is absent.
    """

    NOT_MENTIONED = 0
    POSITIVE = 1
    NEGATIVE = 2
    UNCERTAIN = 3
    UNLABELLED = 4  # of images: their archive does not label the concept


StateVector = npt.NDArray[np.int8]  # (..., num_findings), `LabelState`


def is_stated(states: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether a state is positive, negative or uncertain.

    >>> is_stated(np.arange(5, dtype=np.int8)).tolist()
    [False, True, True, True, False]
    """
    stated: npt.NDArray[np.bool_] = (states != LabelState.NOT_MENTIONED) & (states != LabelState.UNLABELLED)
    return stated
