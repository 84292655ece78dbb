"""What the scripts of contrib/bench share. Python's standard library alone; plots are drawn by gnuplot."""
