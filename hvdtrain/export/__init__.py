"""A checkpoint's network in formats that other programs read, compared with itself before it is put in its place."""
