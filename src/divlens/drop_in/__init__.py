"""Interventions in the user's own pipeline: `apply` for diffusers, `logits_processor` for `generate` of transformers.

What draws there is not divlens, so only the law of the tokens can be changed (`law`), by the loop's own function.
"""
