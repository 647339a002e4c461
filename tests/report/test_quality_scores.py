"""The tidy table of a comparison is made once a study and goes with it."""

import gc
import weakref

from knowhue.report.methods import quality_scores
from knowhue.report.study import Study


def test_the_table_is_made_once_and_keeps_no_study_alive():
    study = Study(settings={}, runs={})
    assert quality_scores(study) is quality_scores(study)
    alive = weakref.ref(study)
    del study
    gc.collect()
    assert alive() is None
