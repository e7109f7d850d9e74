"""Statistics of tables: paired intervals, tuning, time to a target. No Keras, no runs."""
