"""Which boxes of a picture become regions (paper, section 3.1): found by graph segmentation or SAM, or annotated."""
