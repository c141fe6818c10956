"""What was made from what: back to source files and trainings, forward to all that these reached."""
