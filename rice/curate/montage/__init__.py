"""The montage: a page with a sheet of regions for each cluster, which opens without a server."""
