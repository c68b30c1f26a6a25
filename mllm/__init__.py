"""Multimodal probes: what language models see through a vision encoder (sections 4.1 and 4.2)."""
