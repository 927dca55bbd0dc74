"""rmo: how hard may I optimise against this reward model before what I really want gets worse?

Dimension legend, used as name suffixes everywhere (`logits_BTV` is [batch, tokens, vocabulary]):

    B batch of sequences        N draws per prompt, resamples R response tokens
    C comparisons, curves       P prompt tokens (left pad)    S cache slots, seeds
    D width of the trunk        Q prompts                     T tokens = P + R
    H heads (Hkv of keys)       K points of a curve           V vocabulary
    L layers                    M members of a vmapped sweep  2 the pair, preferred first
                                G groups of curves
"""

__version__ = "0.1.0"
