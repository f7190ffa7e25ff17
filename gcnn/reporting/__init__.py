"""Tables, figures and the page, made of the files that runs and benchmarks leave on disk; never of models."""
