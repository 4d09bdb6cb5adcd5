"""What a model is (`protocol`), where models are found (`registry`), and the models themselves.

Importing this package costs nothing: torch comes in when a model is loaded.
"""

from divlens.models.registry import known, load, register

__all__ = ["known", "load", "register"]
