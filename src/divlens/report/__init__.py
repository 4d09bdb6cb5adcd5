"""What is known of a model before it is run, and the terminal that everything is printed on."""
