"""Networks: tokens to hidden states to log-probabilities."""
