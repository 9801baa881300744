"""What a trained run gets right and wrong: report page, cross-domain table, comparison of runs."""
