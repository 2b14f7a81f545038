"""The papers' tables, row by row: what each row changes, and what was published for it."""
