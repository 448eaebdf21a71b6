"""The report: a study's store in, one self-contained HTML page and tables out."""
