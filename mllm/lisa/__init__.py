"""Referring segmentation with a language model: LISA around any encoder."""
