"""What a setting is, every setting, and where its value came from.  Floor 1."""
