"""Image-level probe: k-NN and linear classification of an image folder."""
