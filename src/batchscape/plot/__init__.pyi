# The public functions that draw. `__init__.py` loads each from here when it is first used.

from .advice import advice_figure as advice_figure
from .advice import expected_time as expected_time
from .advice import peaks as peaks
from .advice import throughput as throughput
from .landscape import draw_lines as draw_lines
from .landscape import draw_plane as draw_plane
from .lines import along_line as along_line
from .lines import interpolation as interpolation
from .style import Caption as Caption
from .style import batch_axis as batch_axis
from .style import paper as paper
from .style import save_figure as save_figure
from .surface import contours as contours
from .surface import heat_map as heat_map
from .surface_page import surface_html as surface_html
