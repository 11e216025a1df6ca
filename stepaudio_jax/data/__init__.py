"""Floor 2: data sets, mixtures and packed batches."""
