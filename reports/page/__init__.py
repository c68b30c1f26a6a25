"""The static page of `rice report`: one file with its data, style and script inside, and large media beside it."""
