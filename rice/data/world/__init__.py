"""The generated world: seeded scenes and clips with masks, boxes, words and identities."""
