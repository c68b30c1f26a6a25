"""Data: readers of the real layouts, and the generated world."""
