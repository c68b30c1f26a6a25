"""`rice tokens`: how far apart the patch tokens of an image lie (Fig. 4)."""
