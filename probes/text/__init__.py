"""Text probe: frozen patch tokens to the letters of a word."""
