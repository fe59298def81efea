"""The models of a tokenizer: each turns a word into ids.

bpe.py applies merges, wordpiece.py takes the longest match, unigram.py finds the most probable
segmentation.  sentencepiece_bpe.py converts the scores of a SentencePiece BPE model to merges.
"""
