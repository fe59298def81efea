"""Golden vectors: inputs, outputs, cotangents and gradients of everything there is, for other code.

    from tinyplm.checks import vectors

    vectors.write("golden")                              # or some: components=["rmsnorm"]
    vectors.verify("golden")                             # the installed version against the files
    vectors.check_against("golden", "rmsnorm", arrays)   # anybody's arrays against the files

folder.py       writing a folder and its manifest
reading.py      reading and verifying one, checking arrays against it
measure.py      the arrays of a case in each dtype, and what rounding explains
draws.py        random numbers that are bit-identical on every machine
encoding.py     arguments as JSON and arrays
subject.py      what has vectors: subjects and their cases;  subjects.py  all of them by name
components.py   the table of components;  difficult.py  their difficult cases
families.py     a tiny model of every family;  family_cases.py  their configurations and inputs
optimisation.py, sampling.py, objectives.py, tokenization.py    everything else
"""

from .draws import DTYPES
from .folder import read_manifest, write
from .reading import Difference, Vectors, check_against, read, verify
from .subjects import names

__all__ = [
    "DTYPES",
    "Difference",
    "Vectors",
    "check_against",
    "names",
    "read",
    "read_manifest",
    "verify",
    "write",
]
