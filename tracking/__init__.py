"""The tracking probe (paper, section 4.4): OSTrack's head on frozen encoders, its benchmarks, and their metrics."""
