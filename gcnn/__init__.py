"""Language modeling with gated convolutional networks (Dauphin et al. 2017)."""
