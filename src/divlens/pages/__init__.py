"""A run as one HTML file that needs nothing else: its verdict, its pictures, its figures, and what they cannot show."""
