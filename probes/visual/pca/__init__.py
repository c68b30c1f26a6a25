"""`rice pca`: patch tokens of a video as colours (Fig. 5)."""
