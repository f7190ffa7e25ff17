"""Text to batches, in this order:

(1) sources.py finds the files of a corpus,
(2) tables.py reads their rows,
(3) corpus.py has the lines of each split,
(4) tokenizer_training.py trains a tokenizer, and tokenizers.py turns lines to ids with it,
(5) stream.py encodes a split once and keeps it in the cache (cache.py),
(6) batches.py cuts batches out of it.
"""
