"""Dense probe: frozen patch tokens to per-pixel classes."""
