"""The main job: sweep the batch size, measure the minima, judge the statements, draw the figures."""
