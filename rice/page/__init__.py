"""What static pages share: one file with style, script and data inside, and a policy that lets nothing else run."""
