"""Pictures of arrays and tables, and the page that shows them. Needs no torch."""
