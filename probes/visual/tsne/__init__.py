"""`rice tsne`: object features on spheres (Fig. 1)."""
