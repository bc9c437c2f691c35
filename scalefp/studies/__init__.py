"""What the jobs of a sweep leave, and the table, files and plot that are made of all of them."""
