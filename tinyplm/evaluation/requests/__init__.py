"""What a benchmark asks of a model, and the answers on disk.

encoding.py   tokens of a context and its continuation, windows of a long text
asking.py     log-likelihoods and greedy texts, batched by length
cache.py      answers on disk, for a resumed evaluation
"""

from .asking import Asker, Likelihood
from .cache import Cache
from .encoding import encode_pair, rolling_windows

__all__ = ["Asker", "Cache", "Likelihood", "encode_pair", "rolling_windows"]
