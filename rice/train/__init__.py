"""Training RICE (section 4.1): recipes, the loop, checkpoints, metrics."""
