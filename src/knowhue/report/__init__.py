"""From the files of a study to one page that shows it; no torch anywhere."""
