"""Training: from word counts to a vocabulary, one file per algorithm (bpe, wordpiece, unigram,
sentencepiece_bpe).

recipes.py combines each algorithm with the components of a complete tokenizer.  pairs, suffixes,
lattices and scripts are the data structures and tables of the trainers.
"""
