"""Detection probe: boxes and masks from frozen patch tokens."""
