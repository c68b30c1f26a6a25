"""What an encoder sees, as pictures."""
