"""How the model that ships is made: its data, its training, its measuring. See README.md."""
