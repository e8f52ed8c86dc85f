"""The logs that the project knows: one file per data set, and `table` for a user's own."""
