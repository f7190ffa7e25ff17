"""Speed and memory of models and of preparing text, beside what the machine allows."""
