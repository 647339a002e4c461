"""Several questions at once: the share of false positives among the positives."""

from collections.abc import Mapping

from scipy import stats


def benjamini_hochberg(p: Mapping[str, float]) -> dict[str, float]:
    """Adjust for the expected share of false positives among the positives (Benjamini and Hochberg 1995).

    For secondary metrics, classes and arms; the primary questions share alpha instead (`statistics.verdicts`).

    Args:
        p: p value by name, each in 0..1.

    Returns:
        Adjusted p by name, in the same order.

    >>> benjamini_hochberg({"psnr": 0.01, "ssim": 0.04, "fid": 0.04})
    {'psnr': 0.03, 'ssim': 0.04, 'fid': 0.04}
    """
    adjusted = stats.false_discovery_control(list(p.values())) if p else ()
    return dict(zip(p, map(float, adjusted), strict=True))
