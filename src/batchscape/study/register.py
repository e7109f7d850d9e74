"""Every study, imported so that its profiles and its readings are registered."""

import batchscape.study.cost.profile
import batchscape.study.cost.readings
import batchscape.study.gradient.profile
import batchscape.study.gradient.readings
import batchscape.study.main.profile
import batchscape.study.main.readings
import batchscape.study.minima.profile
import batchscape.study.minima.readings
import batchscape.study.rates.profile
import batchscape.study.rates.readings
import batchscape.study.target.profile
import batchscape.study.target.readings  # noqa: F401 (each registers itself)
