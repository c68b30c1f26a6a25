"""The sweep, encoders x probes x datasets x seeds, each cell a process of its own; and the sweeps that come with it."""
