"""Reading and writing tokenizers: a single file, or a folder as on the Hugging Face hub.
folders.py is the entry point."""
