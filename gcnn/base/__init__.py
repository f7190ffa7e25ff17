"""What all rooms stand on: errors, files, values, processes. Nothing here knows torch or Hydra at import."""
