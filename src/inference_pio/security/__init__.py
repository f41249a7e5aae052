"""How far a plugin is trusted, what it may use, and what of that is enforced here."""

from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.report import Enforcement, EnforcementReport

__all__ = ["Enforcement", "EnforcementReport", "ResourceLimits", "SecurityLevel"]
