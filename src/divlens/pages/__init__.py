"""A run as one HTML file that needs nothing else: its verdict, its pictures, its figures, and what they cannot show."""

from divlens.pages.report import report

__all__ = ["report"]
