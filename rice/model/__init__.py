"""The parts of the RICE network, one part of the paper per file."""
