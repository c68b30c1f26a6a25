"""`rice compare`: which differences between encoders are more than noise."""
