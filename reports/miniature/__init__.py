"""The paper in miniature: every part of the pipeline at small size, and the paper's claims as predictions."""
