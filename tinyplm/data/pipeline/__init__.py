"""From raw text to a corpus: steps over documents, one at a time, in bounded memory.

step.py         what a step is: Document, Step, CorpusStep
registry.py     the steps by name, with settings
compression.py  plain, .gz and .zst files   readers.py  documents of a file
sources.py      the user's files, cut into shards
stages.py       one shard through the steps up to the next that needs the whole corpus
decisions.py    what such a step decides, on disk
processes.py    shards over processes       manifest.py  what a run is, for resuming
runner.py       a whole run                 tally.py, report.py  what each step did
comparison.py   two corpora beside one another
"""

from .registry import STEPS
from .report import Report
from .runner import run_pipeline
from .step import CorpusStep, Counts, Document, Ragged, Result, Step

__all__ = [
    "STEPS",
    "CorpusStep",
    "Counts",
    "Document",
    "Ragged",
    "Report",
    "Result",
    "Step",
    "run_pipeline",
]
