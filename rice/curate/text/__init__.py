"""Text of pictures: lines that an engine reads, those that are kept, and their tokens (paper, section 3.1)."""
