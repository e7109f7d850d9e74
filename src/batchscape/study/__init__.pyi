# Our own work by name: `bs.study.reproduce`. `__init__.py` loads each from here when it is first used.

from .definitions.count import count_definitions as count_definitions
from .definitions.count import watch_fit as watch_fit
from .judge import Verdict as Verdict
from .judge import to_markdown as to_markdown
from .judge import to_table as to_table
from .judge import verdict as verdict
from .judge import verdicts as verdicts
from .judge import verdicts_of as verdicts_of
from .main_job import Reproduction as Reproduction
from .main_job import reproduce as reproduce
from .main.profile import PROFILES as PROFILES
from .main.run import folder_of as folder_of
from .main.run import run_study as run_study
from .cost.run import run_cost_study as run_cost_study
from .gradient.run import run_noise_study as run_noise_study
from .minima.run import run_minima_study as run_minima_study
from .minima.run import run_replication as run_replication
from .rates.policies import by_policy as by_policy
from .rates.run import run_rates_study as run_rates_study
from .tables import Tables as Tables
from .target.run import run_target_study as run_target_study
