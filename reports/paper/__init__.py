"""The paper's Tables 1 to 5: their cells as CSV, how they are laid out and add up, and measured results beside them."""
