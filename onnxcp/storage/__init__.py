"""Files of our own: written whole, cached under keys, kept in a work folder."""
