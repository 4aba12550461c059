"""Pure functions from arrays to scores; a file is a metric, its folder says what arrays it takes."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
