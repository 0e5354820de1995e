"""Where a file goes wrong: every value of the reference against the file's, down to the node and the source line."""

from __future__ import annotations

from graphforge.diagnosis.artifact import Artifact
from graphforge.diagnosis.by_image import diagnose_by_image, of_one_image
from graphforge.diagnosis.diagnose import MEMORY, diagnose
from graphforge.diagnosis.file_tape import tape_of_file
from graphforge.diagnosis.locate import located
from graphforge.diagnosis.report import Cause, Diagnosis, Row
from graphforge.diagnosis.tape import Entry, Tape
from graphforge.diagnosis.weights import Weights, weights_of

__all__ = [
    "MEMORY",
    "Artifact",
    "Cause",
    "Diagnosis",
    "Entry",
    "Row",
    "Tape",
    "Weights",
    "diagnose",
    "diagnose_by_image",
    "located",
    "of_one_image",
    "tape_of_file",
    "weights_of",
]
