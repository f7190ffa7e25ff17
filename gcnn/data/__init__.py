"""Text to batches, in this order: (1) sources.py finds the files of a corpus, (2) tables.py reads
their rows, (3) corpus.py has the lines of each split, (4) tokenizer_training.py and tokenizers.py
turn them to ids, (5) stream.py keeps these in a cache, (6) batches.py cuts batches of them."""
