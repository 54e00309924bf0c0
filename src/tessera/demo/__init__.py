"""The demo world: real text, generated requests, and tiny models and SAEs trained on them, all from this machine.

Nothing here needs a network, a token or a GPU. The texts are docstrings that every installation already holds and
requests from a seeded generator; the models are Gemma 2 in all but size, the SAEs are sae-lens's own. What comes out
lies on disk in the same form as what comes from the Hub, so that everything downstream takes the same path.
"""
