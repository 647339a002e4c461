"""What may be concluded from paired runs: intervals, tests, multiplicity, power; numbers in, numbers out.

`scipy.stats` takes half a second to import: what needs it imports it when it is called, `scipy.special` does for most.
"""

ALPHA = 0.05
"""Rate of false claims where a plan does not say another."""
LEAST_ALPHA = 1e-6
"""Below, 1 - alpha over many questions has too few digits left for an interval."""
MAGNITUDES = (1e-70, 1e70)
"""Of scores but 0, and of the smallest effects of interest: squares of variances neither vanish nor overflow."""
LEVEL = 1 - ALPHA
"""Of every interval on which no verdict rests."""
MIN_SEEDS = 8
"""No claim below, whatever alpha: with 7 one pattern of signs alone rejects at .025."""
FEWEST_IMAGES = 20
"""Fewer say too little about other images for any interval over them."""
