"""The Miras space: a memory, its attentional bias, its retention and its learner (arXiv 2504.13173)."""
