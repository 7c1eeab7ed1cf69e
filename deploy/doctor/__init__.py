"""Everything that a deployment leans on, looked at in one go, each finding with its cure.

`laptop` looks at this machine, `host` at the other, `checkup` puts both together. What preflight
looks at as well is asked of preflight.
"""

from deploy.doctor.checkup import as_text, code, examine

__all__ = ["as_text", "code", "examine"]
