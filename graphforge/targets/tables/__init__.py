"""What each runtime takes, one table (``*.toml``) each, by release where it depends on that, and who reads them.

A table names the document it repeats, or says that it was measured.  What the code says of a runtime it asks here, so
that it is true of the version that is installed.  A folder below the rest of ``targets``: passes read it too.
"""

from __future__ import annotations

from graphforge.targets.tables.facts import Facts, Fault, facts_of
from graphforge.targets.tables.forms import Form
from graphforge.targets.tables.kernels import Kernels
from graphforge.targets.tables.table import installed_version, table_of

__all__ = ["Facts", "Fault", "Form", "Kernels", "facts_of", "installed_version", "table_of"]
