//! Data set cards of points: texts in `datasets/`, part of the program.
