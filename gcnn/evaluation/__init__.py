"""What is asked of a trained model: perplexity, scores, samples."""
