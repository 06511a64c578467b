"""The bins of the histograms that sensitivity steps store."""

BINS = 33
REACH = 8.0  # root mean squares to both sides of zero; the outermost bins also count what lies beyond
