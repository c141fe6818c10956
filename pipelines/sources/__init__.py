"""Raw files: where they lie, what is in them, and how they become typed views for a data set's SQL."""
