"""What the tests, and the studies, hold the library against, and the small models that they hold it against it with.

An oracle knows the answer by another way than the library's: by walking all that can happen, by arithmetic that is
written again from the paper, or by published code. So it takes from the library at most a model's logits and a rule's
schedule. The small models beside the oracles are those whose answer can be had: `toy_grids` and `transcripts` walk all
their samples, and the `tiny_*` ones are published networks with few random weights, which the published code runs too.

No test stands here, and nothing here is told what the library answered.
"""
