"""Statistics of paired runs: intervals, tests, multiplicity, power and verdicts; pure functions of numbers.

`scipy.stats` takes half a second to import, so functions that need it import it when called; most need only
`scipy.special`.
"""

ALPHA = 0.05
"""Default rate of false claims of a study."""
LEAST_ALPHA = 1e-6
"""Smallest accepted alpha; below it, 1 - alpha over many questions has too few digits for an interval."""
MAGNITUDES = (1e-70, 1e70)
"""Range of nonzero scores and of smallest effects of interest: squared variances neither underflow nor overflow."""
LEVEL = 1 - ALPHA
"""Confidence level of the intervals on which no verdict rests."""
MIN_SEEDS = 8
"""Fewest seeds for a claim, whatever alpha; with 7, only one pattern of signs rejects at .025."""
FEWEST_IMAGES = 20
"""Fewest images for an interval over images."""
