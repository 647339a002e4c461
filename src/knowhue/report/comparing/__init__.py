"""The report of a comparison: what each way to colour gives and costs."""
