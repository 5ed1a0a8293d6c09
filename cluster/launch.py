"""Put a plan into force: write it down and make sure that a supervisor works on it."""

import time
from dataclasses import replace

from assistant.clock import new_id
from assistant.errors import ConfigurationError
from cluster.files import locked
from cluster.layout import Layout
from cluster.plan import Plan
from cluster.processes import is_alive, reap
from cluster.state import State
from cluster.supervisor import start_process

SUPERVISOR_WAIT_S = 30.0
CHANGE_WAIT_S = 180.0
"""A leader stops what the new plan changes before it says that it has taken it over."""


def apply(layout: Layout, plan: Plan) -> State:
    """Make `plan` the truth; the state once a leader works on it.

    A running supervisor takes the new plan over and restarts only what it changes. Call it while holding
    the launch lock. Raises ConfigurationError when no supervisor comes up, and OSError for a full disk.
    """
    plan = replace(plan, id=str(new_id()))
    plan.write(layout.plan)
    layout.stop_request.unlink(missing_ok=True)
    started = None
    began = time.monotonic()
    leads = False
    while time.monotonic() - began < (CHANGE_WAIT_S if leads else SUPERVISOR_WAIT_S):
        state = read_state(layout)
        leads = state is not None and is_alive(state.leader)
        if state and leads and state.plan == plan.id:
            return state
        if not leads and not is_alive(started):
            reap(started)
            started = start_process(layout)
        time.sleep(0.05)
    raise ConfigurationError("The supervisor does not start.", hint=f"Its log is {layout.log('supervisor')}.")


def read_state(layout: Layout) -> State | None:
    """The state file, or None when it is absent or unreadable: the next leader writes it anew."""
    try:
        return State.read(layout.state)
    except ConfigurationError:
        return None


def launch(layout: Layout, plan: Plan) -> State:
    """`apply` under the launch lock."""
    with locked(layout.launch_lock):
        return apply(layout, plan)
