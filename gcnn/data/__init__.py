"""Text to token ids to batches: corpus.py, tokenizers.py, stream.py, batches.py."""
