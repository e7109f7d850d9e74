"""Verdicts: the register of statements, their decision rules, and the statistics behind them. No TensorFlow here."""
