"""Reading for people and for other programs: which rows, how they look in a terminal, a day as one file."""
