"""LLaVA-NeXT around any encoder: data, training, evaluation (section 4.1, Table 1)."""
