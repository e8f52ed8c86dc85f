"""Files of tables, as people have them: kinds, how text is written, which rows count."""
