"""Pure functions from arrays to scores; a file is a metric, its folder says what arrays it takes."""
