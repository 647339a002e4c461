"""What may be concluded from paired runs: intervals, tests, multiplicity, power; numbers in, numbers out."""
