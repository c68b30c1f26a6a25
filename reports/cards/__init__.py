"""Model cards: what results say of an encoder, as the Hugging Face hub wants it."""
