"""From a pile of pictures to labelled regions (paper, section 3.1)."""
