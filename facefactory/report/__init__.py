"""Reports: a run folder becomes report.html (for people) and report.json (for programs); files in, files out."""
