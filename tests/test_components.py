"""Every component of the table through all laws, on every device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests import laws
from tests.components import COMPONENTS
from tests.strategies import sizes


@pytest.mark.parametrize("name", COMPONENTS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the device is a plain string
@given(s=sizes())
def test_laws(name, device, s):
    component = COMPONENTS[name]
    laws.check_all(component.f, component.reference, component.make(s), device, np.random.default_rng(s.seed + 1))
