"""In which language a text is, by the n-grams of its characters.

step.py       language(...): the step of the corpus pipeline
model.py      train_language, LanguageModel: naive Bayes over hashed n-grams; files
ngrams.py     the n-grams of a text as numbers of buckets
scripts.py    the script of each character
fasttext.py   the models of the library fastText, if it is installed
"""

from .model import LanguageModel, load_language, train_language
from .ngrams import character_ngrams
from .step import language

__all__ = ["LanguageModel", "character_ngrams", "language", "load_language", "train_language"]
