"""Probes that judge a frozen encoder, the store of their results, and the sweep that runs them."""
