"""Tables, figures and the page, made of files of runs and benchmarks; no model is loaded."""
