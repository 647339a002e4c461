"""The works that a study's statistics rest on, as BibTeX."""

from collections.abc import Iterable

WORKS: dict[str, tuple[str, dict[str, str]]] = {
    "fisher1935": (
        "book",
        {
            "author": "Fisher, Ronald A.", "title": "The Design of Experiments", "publisher": "Oliver and Boyd",
            "address": "Edinburgh", "year": "1935",
        },
    ),
    "cornfield1956": (
        "article",
        {
            "author": "Cornfield, Jerome and Tukey, John W.",
            "title": "Average Values of Mean Squares in Factorials",
            "journal": "The Annals of Mathematical Statistics", "volume": "27", "number": "4", "pages": "907--949",
            "year": "1956",
        },
    ),
    "satterthwaite1946": (
        "article",
        {
            "author": "Satterthwaite, Franklin E.",
            "title": "An Approximate Distribution of Estimates of Variance Components",
            "journal": "Biometrics Bulletin", "volume": "2", "number": "6", "pages": "110--114", "year": "1946",
        },
    ),
    "schuirmann1987": (
        "article",
        {
            "author": "Schuirmann, Donald J.",
            "title": "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the "
            "Equivalence of Average Bioavailability",
            "journal": "Journal of Pharmacokinetics and Biopharmaceutics", "volume": "15", "number": "6",
            "pages": "657--680", "year": "1987",
        },
    ),
    "benjamini1995": (
        "article",
        {
            "author": "Benjamini, Yoav and Hochberg, Yosef",
            "title": "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing",
            "journal": "Journal of the Royal Statistical Society, Series B", "volume": "57", "number": "1",
            "pages": "289--300", "year": "1995",
        },
    ),
    "hedges1981": (
        "article",
        {
            "author": "Hedges, Larry V.",
            "title": "Distribution Theory for {Glass}'s Estimator of Effect Size and Related Estimators",
            "journal": "Journal of Educational Statistics", "volume": "6", "number": "2", "pages": "107--128",
            "year": "1981",
        },
    ),
    "benavoli2017": (
        "article",
        {
            "author": r"Benavoli, Alessio and Corani, Giorgio and Dem{\v{s}}ar, Janez and Zaffalon, Marco",
            "title": "Time for a Change: a Tutorial for Comparing Multiple Classifiers Through {Bayesian} Analysis",
            "journal": "Journal of Machine Learning Research", "volume": "18", "number": "77", "pages": "1--36",
            "year": "2017",
        },
    ),
    "guo2017": (
        "inproceedings",
        {
            "author": "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
            "title": "On Calibration of Modern Neural Networks",
            "booktitle": "Proceedings of the 34th International Conference on Machine Learning",
            "pages": "1321--1330", "year": "2017",
        },
    ),
    "fifty2021": (
        "inproceedings",
        {
            "author": "Fifty, Christopher and Amid, Ehsan and Zhao, Zhe and Yu, Tianhe and Anil, Rohan and "
            "Finn, Chelsea",
            "title": "Efficiently Identifying Task Groupings for Multi-Task Learning",
            "booktitle": "Advances in Neural Information Processing Systems", "volume": "34", "pages": "27503--27516",
            "year": "2021",
        },
    ),
    "maninis2019": (
        "inproceedings",
        {
            "author": "Maninis, Kevis-Kokitsi and Radosavovic, Ilija and Kokkinos, Iasonas",
            "title": "Attentive Single-Tasking of Multiple Tasks",
            "booktitle": "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            "pages": "1851--1860", "year": "2019",
        },
    ),
}  # fmt: skip
"""By key: the kind of entry, and its fields."""
IN_TEXTS = {
    "Benavoli et al. 2017": "benavoli2017",
    "Fifty et al. 2021": "fifty2021",
    "Guo et al. 2017": "guo2017",
    "Maninis et al. 2019": "maninis2019",
}
"""How captions name a work, and its key."""


def bibliography(names: Iterable[str]) -> str:
    """The entries of some of `WORKS` as BibTeX."""
    return "\n".join(_entry(name) for name in names)


def _entry(name: str) -> str:
    kind, fields = WORKS[name]
    lines = "".join(f"  {field} = {{{value}}},\n" for field, value in fields.items())
    return f"@{kind}{{{name},\n{lines}}}\n"
